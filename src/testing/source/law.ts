// A law of a contract as a test: a sentence, and a function that throws where it doesn't hold. They belong to no
// test runner; give them to yours:
//
//   for (const { law, check } of pageSourceLaws) test(`my source: ${law}`, () => check(mine));

export interface Law<Subject> {
  readonly law: string;
  check(subject: Subject): Promise<void>;
}

// A case that can't be carried out: a silent step that failed, a name that nobody introduced, a deadline. It
// makes the case fail with this text instead of with a wrong token.

export class CaseProblem extends Error {
  constructor(message: string) {
    super(message);
    this.name = "CaseProblem";
  }
}

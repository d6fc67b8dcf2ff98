// How the page and the report say numbers.
export const WORDS = 1;

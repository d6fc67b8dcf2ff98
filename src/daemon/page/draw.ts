// How the page and the report draw: see what follows.
export const DRAWING = 1;

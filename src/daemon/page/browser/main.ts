// The live page's program.
export {};

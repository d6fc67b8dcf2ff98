// minorfault/testing: the conformance suite, for everybody who has a userfaultfd system to hold to it.
//
// A system is whatever implements `System` of minorfault/abi; a case is a line of text (docs/cases.md). Loading
// this opens nothing and runs anywhere.

export type { Process, System, Thread } from "../abi/system.ts";
export { CASES } from "./conformance/cases/index.ts";
export { MASK_NAMES, MASKS, type MaskName, type Masks, masksFor } from "./conformance/masks.ts";
export { type Case, parseCases, type SystemName } from "./conformance/parse.ts";
export { type Counts, countResults, failureLines, resultLines } from "./conformance/report.ts";
export { type CaseResult, type Profile, type RunOptions, runCase, runCases } from "./conformance/run.ts";
export type { Need } from "./conformance/scope.ts";
export * from "./source/index.ts";

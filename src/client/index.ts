export type { Frame, FrameGuest } from "../daemon/control/frame.ts";
export type { History, HistoryColumn } from "../daemon/control/history-schema.ts";
export type { AnswerOf, InputOf, OperationName } from "../daemon/control/routes.ts";
export type { Guest, GuestDetails, Health, Image } from "../daemon/control/schemas.ts";
export * from "./client.ts";

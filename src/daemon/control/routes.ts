// The control API as one table: the server serves it, the client calls it, the OpenAPI document describes it.
//
// An operation's input is one flat object; where each of its fields travels (path, query, body) is written here.

import { z } from "zod";
import { policyFile } from "../policy-file.ts";
import { history } from "./history-schema.ts";
import {
  expectedGuest,
  guest,
  guestDetails,
  guestState,
  health,
  image,
  limits,
  newImage,
  someLimits,
  ticket,
} from "./schemas.ts";

const id = z.string().min(1).max(64);
const nothing = z.object({});

export interface Route {
  readonly method: "GET" | "POST" | "PUT" | "PATCH" | "DELETE";
  /** With `{name}` for parameters. */
  readonly path: string;
  readonly summary: string;
  readonly params?: z.ZodObject;
  readonly query?: z.ZodObject;
  readonly body?: z.ZodObject;
  /** Of a success. */
  readonly status: 200 | 201 | 202;
  readonly answer: z.ZodType;
}

export const ROUTES = {
  health: {
    method: "GET",
    path: "/v1/health",
    summary: "How the server is: its processes, its counters, whether it is ready",
    status: 200,
    answer: health,
  },
  listGuests: {
    method: "GET",
    path: "/v1/guests",
    summary: "Guests that are being served, and those that are expected",
    query: z.strictObject({ image: z.string().optional(), state: guestState.optional() }),
    status: 200,
    answer: z.object({ guests: z.array(guest), expected: z.array(expectedGuest) }).meta({ id: "GuestList" }),
  },
  expectGuest: {
    method: "POST",
    path: "/v1/guests",
    summary: "Announces a guest: it gets a socket of its own, which serves it and nobody else",
    body: ticket,
    status: 201,
    answer: expectedGuest,
  },
  getGuest: {
    method: "GET",
    path: "/v1/guests/{id}",
    summary: "One guest, with its regions",
    params: z.object({ id }),
    status: 200,
    answer: guestDetails,
  },
  guestHistory: {
    method: "GET",
    path: "/v1/guests/{id}/history",
    summary: "What happened to a guest since it was handed over, also for a while after it has ended",
    params: z.object({ id }),
    status: 200,
    answer: history,
  },
  drainGuest: {
    method: "POST",
    path: "/v1/guests/{id}/drain",
    summary: "Installs everything, then lets the guest go: it needs no pager any more",
    params: z.object({ id }),
    body: z.strictObject({
      wait: z.boolean().optional().describe("Answer when it is done. Default true"),
    }),
    status: 200,
    answer: z.object({ id: z.string(), done: z.boolean() }).meta({ id: "Drained" }),
  },
  dropGuest: {
    method: "DELETE",
    path: "/v1/guests/{id}",
    summary: "Ends a guest (SIGKILL): without its pages it cannot live. An expected one is forgotten",
    params: z.object({ id }),
    query: z.strictObject({ reason: z.string().min(1).max(200).optional() }),
    status: 200,
    answer: z.object({ id: z.string(), was: z.enum(["serving", "expected"]) }).meta({ id: "Dropped" }),
  },
  listImages: {
    method: "GET",
    path: "/v1/images",
    summary: "Images that guests can connect to",
    status: 200,
    answer: z.object({ images: z.array(image) }).meta({ id: "ImageList" }),
  },
  addImage: {
    method: "POST",
    path: "/v1/images",
    summary: "Serves one more image, at a socket of its own",
    body: newImage,
    status: 201,
    answer: image,
  },
  removeImage: {
    method: "DELETE",
    path: "/v1/images/{name}",
    summary: "Takes an image's socket away; guests that have the image are served on",
    params: z.object({ name: id }),
    status: 200,
    answer: nothing,
  },
  warmImage: {
    method: "POST",
    path: "/v1/images/{name}/warm",
    summary: "Opens an image ahead of its guests; answers when that is done",
    params: z.object({ name: id }),
    status: 200,
    answer: image,
  },
  getLimits: {
    method: "GET",
    path: "/v1/limits",
    summary: "What the server takes from outside",
    status: 200,
    answer: limits,
  },
  setLimits: {
    method: "PATCH",
    path: "/v1/limits",
    summary: "Changes limits, for what comes; whoever is there stays",
    body: someLimits,
    status: 200,
    answer: limits,
  },
  setPolicy: {
    method: "PUT",
    path: "/v1/policy",
    summary: "Changes who may use which image, for what comes; whoever is there stays",
    body: policyFile,
    status: 200,
    answer: nothing,
  },
  shutdown: {
    method: "POST",
    path: "/v1/shutdown",
    summary: "Takes no more guests, drains those that are there, and ends the server",
    body: z.strictObject({
      withinMs: z.int().min(0).max(86_400_000).optional().describe("Who is not drained by then is ended"),
    }),
    status: 202,
    answer: nothing,
  },
} as const satisfies Record<string, Route>;

export type Routes = typeof ROUTES;
export type OperationName = keyof Routes;

type Part<R, Key extends string> = R extends { readonly [K in Key]: infer Schema extends z.ZodType }
  ? z.infer<Schema>
  : unknown;

/** What an operation takes, in one object. */
export type InputOf<Name extends OperationName> = Part<Routes[Name], "params"> &
  Part<Routes[Name], "query"> &
  Part<Routes[Name], "body">;

export type AnswerOf<Name extends OperationName> = z.infer<Routes[Name]["answer"]>;

/** The request that an operation answers. */
export interface Asked {
  /** Raised when the one who asked has gone before he was answered. */
  readonly signal: AbortSignal;
  /** Does something when he has his answer. */
  afterwards(work: () => void): void;
}

/** Does what a request asks for; what it throws becomes the answer. */
export type Operations = {
  readonly [Name in OperationName]: (
    input: InputOf<Name>,
    asked: Asked,
  ) => AnswerOf<Name> | Promise<AnswerOf<Name>>;
};

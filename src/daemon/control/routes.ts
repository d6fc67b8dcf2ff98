// The control API as one table: the server serves it, the client calls it, the OpenAPI document describes it.
//
// An operation's input is one flat object; where each of its fields travels (path, query, body) is written here.

import * as v from "valibot";
import { integer, said, text } from "../../base/schema.ts";
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

const id = text(1, 64);
const nothing = v.object({});

/** Of the parts of a request: its fields by name. */
export type ObjectSchema = v.GenericSchema<unknown, object> & { readonly entries: v.ObjectEntries };

export interface Route {
  readonly method: "GET" | "POST" | "PUT" | "PATCH" | "DELETE";
  /** With `{name}` for parameters. */
  readonly path: string;
  readonly summary: string;
  readonly params?: ObjectSchema;
  readonly query?: ObjectSchema;
  readonly body?: ObjectSchema;
  /** Of a success. */
  readonly status: 200 | 201 | 202;
  readonly answer: v.GenericSchema;
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
    query: v.strictObject({ image: v.optional(v.string()), state: v.optional(guestState) }),
    status: 200,
    answer: v.object({ guests: v.array(guest), expected: v.array(expectedGuest) }),
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
    params: v.object({ id }),
    status: 200,
    answer: guestDetails,
  },
  guestHistory: {
    method: "GET",
    path: "/v1/guests/{id}/history",
    summary: "What happened to a guest since it was handed over, also for a while after it has ended",
    params: v.object({ id }),
    status: 200,
    answer: history,
  },
  drainGuest: {
    method: "POST",
    path: "/v1/guests/{id}/drain",
    summary: "Installs everything, then lets the guest go: it needs no pager any more",
    params: v.object({ id }),
    body: v.strictObject({
      wait: v.optional(said(v.boolean(), "Answer when it is done. Default true")),
    }),
    status: 200,
    answer: v.object({ id: v.string(), done: v.boolean() }),
  },
  dropGuest: {
    method: "DELETE",
    path: "/v1/guests/{id}",
    summary: "Ends a guest (SIGKILL): without its pages it cannot live. An expected one is forgotten",
    params: v.object({ id }),
    query: v.strictObject({ reason: v.optional(text(1, 200)) }),
    status: 200,
    answer: v.object({ id: v.string(), was: v.picklist(["serving", "expected"]) }),
  },
  listImages: {
    method: "GET",
    path: "/v1/images",
    summary: "Images that guests can connect to",
    status: 200,
    answer: v.object({ images: v.array(image) }),
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
    params: v.object({ name: id }),
    status: 200,
    answer: nothing,
  },
  warmImage: {
    method: "POST",
    path: "/v1/images/{name}/warm",
    summary: "Opens an image ahead of its guests; answers when that is done",
    params: v.object({ name: id }),
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
    body: v.strictObject({
      withinMs: v.optional(said(integer(0, 86_400_000), "Who is not drained by then is ended")),
    }),
    status: 202,
    answer: nothing,
  },
} as const satisfies Record<string, Route>;

export type Routes = typeof ROUTES;
export type OperationName = keyof Routes;

type Part<R, Key extends string> = R extends { readonly [K in Key]: infer Schema extends v.GenericSchema }
  ? v.InferOutput<Schema>
  : unknown;

/** What an operation takes, in one object. */
export type InputOf<Name extends OperationName> = Part<Routes[Name], "params"> &
  Part<Routes[Name], "query"> &
  Part<Routes[Name], "body">;

export type AnswerOf<Name extends OperationName> = v.InferOutput<Routes[Name]["answer"]>;

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

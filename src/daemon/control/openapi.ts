// The OpenAPI 3.1 document of the control API, made from the table of routes and its schemas.

import { type ConversionConfig, toJsonSchema, toJsonSchemaDefs } from "@valibot/to-json-schema";
import type * as v from "valibot";
import { policyFile } from "../policy-file.ts";
import { column, happening, history } from "./history-schema.ts";
import { type ObjectSchema, ROUTES, type Route } from "./routes.ts";
import * as schemas from "./schemas.ts";

type Json = Readonly<Record<string, unknown>>;

const REFUSALS: Readonly<Record<number, string>> = {
  400: "The request does not have the form that it must have",
  401: "Over TCP a token is needed",
  403: "Host or Origin is not this machine's",
  404: "There is no such guest or image",
  409: "It is taken, or being worked on",
  413: "The body is too long",
  429: "A limit of the server was reached",
  500: "A bug of minorfault",
  502: "A source failed",
  503: "The server is not ready, or is ending",
};

/** Operations that are not calls: they answer with text or with events. */
const TEXTS = {
  "/metrics": ["metrics", "Counters for Prometheus", "text/plain"],
  "/healthz": ["alive", "200 as long as the server answers", "text/plain"],
  "/readyz": ["ready", "200 when guests can be handed over, else 503", "text/plain"],
  "/v1/stream": ["stream", "Server-sent events: what the page draws", "text/event-stream"],
} as const;

/** Schemas that have a name in the document: a client made from it has types of these names. */
const COMPONENTS = {
  FaultOutcomes: schemas.outcomes,
  Latency: schemas.latency,
  AwayCounts: schemas.away,
  Statistics: schemas.statistics,
  Region: schemas.region,
  Guest: schemas.guest,
  GuestDetails: schemas.guestDetails,
  ExpectedGuest: schemas.expectedGuest,
  Ticket: schemas.ticket,
  Image: schemas.image,
  NewImage: schemas.newImage,
  Limits: schemas.limits,
  SomeLimits: schemas.someLimits,
  Counters: schemas.counters,
  Health: schemas.health,
  Problem: schemas.problem,
  HistoryColumn: column,
  Happening: happening,
  History: history,
  Policy: policyFile,
} satisfies Record<string, v.GenericSchema>;

const CONVERSION: ConversionConfig = {
  target: "draft-2020-12",
  /** What JSON Schema can't say, such as that a rule names a uid or a gid. */
  ignoreActions: ["check", "readonly"],
  overrideRef: ({ referenceId }) => `#/components/schemas/${referenceId}`,
};

export function openApiDocument(version: string): Json {
  const paths: Record<string, Record<string, Json>> = {};
  for (const [operationId, route] of Object.entries<Route>(ROUTES)) {
    const path = paths[route.path] ?? {};
    paths[route.path] = path;
    path[route.method.toLowerCase()] = operation(operationId, route);
  }
  for (const [path, [operationId, summary, type]] of Object.entries(TEXTS)) {
    const answer = { description: summary, content: { [type]: { schema: { type: "string" } } } };
    paths[path] = { get: { operationId, summary, responses: { 200: answer } } };
  }
  return {
    openapi: "3.1.0",
    info: {
      title: "minorfault",
      version,
      summary: "Control of a page server",
      license: { name: "Apache-2.0", identifier: "Apache-2.0" },
    },
    servers: [{ url: "http://localhost" }],
    security: [{}, { token: [] }],
    paths,
    components: {
      schemas: toJsonSchemaDefs(COMPONENTS, CONVERSION),
      securitySchemes: {
        token: { type: "http", scheme: "bearer", description: "Over TCP; a unix socket has its file's mode" },
      },
    },
  };
}

function operation(operationId: string, route: Route): Json {
  const { params, query, body, status, answer, summary } = route;
  return {
    operationId,
    summary,
    ...(params || query
      ? { parameters: [...parameters("path", params), ...parameters("query", query)] }
      : {}),
    ...(body ? { requestBody: { required: true, content: jsonOf(body) } } : {}),
    responses: {
      [status]: { description: "Done", content: jsonOf(answer) },
      ...Object.fromEntries(
        Object.entries(REFUSALS).map(([code, description]) => [
          code,
          { description, content: jsonOf(schemas.problem) },
        ]),
      ),
    },
  };
}

function jsonOf(schema: v.GenericSchema): Json {
  return { "application/json": { schema: converted(schema) } };
}

function parameters(place: "path" | "query", schema: ObjectSchema | undefined): Json[] {
  if (schema === undefined) return [];
  const { properties = {}, required = [] } = converted(schema);
  return Object.entries(properties).map(([name, property]) => ({
    name,
    in: place,
    required: required.includes(name),
    schema: property,
  }));
}

function converted(schema: v.GenericSchema): ReturnType<typeof toJsonSchema> {
  const { $schema: _, $defs: __, ...json } = toJsonSchema(schema, { ...CONVERSION, definitions: COMPONENTS });
  return json;
}

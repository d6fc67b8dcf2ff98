// The OpenAPI 3.1 document of the control API, made from the table of routes and its schemas.

import { z } from "zod";
import { ROUTES, type Route } from "./routes.ts";
import { problem } from "./schemas.ts";

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

export function openApiDocument(version: string): Json {
  const schemas: Record<string, Json> = {};
  const paths: Record<string, Record<string, Json>> = {};
  for (const [operationId, route] of Object.entries<Route>(ROUTES)) {
    const path = paths[route.path] ?? {};
    paths[route.path] = path;
    path[route.method.toLowerCase()] = operation(operationId, route, schemas);
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
      schemas,
      securitySchemes: {
        token: { type: "http", scheme: "bearer", description: "Over TCP; a unix socket has its file's mode" },
      },
    },
  };
}

function operation(operationId: string, route: Route, schemas: Record<string, Json>): Json {
  const { params, query, body, status, answer, summary } = route;
  return {
    operationId,
    summary,
    ...(params || query
      ? { parameters: [...parameters("path", params), ...parameters("query", query)] }
      : {}),
    ...(body ? { requestBody: { required: true, content: jsonOf(refTo(body, schemas, "input")) } } : {}),
    responses: {
      [status]: { description: "Done", content: jsonOf(refTo(answer, schemas, "output")) },
      ...Object.fromEntries(
        Object.entries(REFUSALS).map(([code, description]) => [
          code,
          { description, content: jsonOf(refTo(problem, schemas, "output")) },
        ]),
      ),
    },
  };
}

function jsonOf(schema: Json): Json {
  return { "application/json": { schema } };
}

function parameters(place: "path" | "query", schema: z.ZodObject | undefined): Json[] {
  if (schema === undefined) return [];
  const { properties = {}, required = [] } = z.toJSONSchema(schema, { io: "input" });
  return Object.entries(properties).map(([name, property]) => ({
    name,
    in: place,
    required: required.includes(name),
    schema: property as Json,
  }));
}

/** A schema that has a name becomes a component, as do the named ones within it. */
function refTo(schema: z.ZodType, schemas: Record<string, Json>, io: "input" | "output"): Json {
  const { $schema: _, $defs = {}, ...json } = z.toJSONSchema(schema, { io });
  for (const [name, definition] of Object.entries($defs)) schemas[name] = moved(definition as Json);
  const name = schema.meta()?.id;
  if (name === undefined) return moved(json);
  schemas[name] = moved(json);
  return { $ref: `#/components/schemas/${name}` };
}

/** References point to the document's components, and a schema's name is where it is referred to, not within it. */
function moved(json: Json): Json {
  const withoutName = (key: string, value: unknown) =>
    key === "id" && typeof value === "string" ? undefined : value;
  const text = JSON.stringify(json, withoutName);
  return JSON.parse(text.replaceAll('"#/$defs/', '"#/components/schemas/')) as Json;
}

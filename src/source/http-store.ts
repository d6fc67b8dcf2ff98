// A folder behind a web server as an object store that can be read: keys are paths below the URL.

import { MinorfaultError } from "../base/errors.ts";
import { HttpClient, type HttpClientOptions } from "./http-client.ts";
import { HttpSource, type HttpTarget } from "./http-source.ts";
import { checkKey, checkPrefix, type ListedObject, type ObjectStore } from "./object-store.ts";
import { OwningSource } from "./owning-source.ts";
import type { PageSource } from "./page-source.ts";
import { plain } from "./plain-url.ts";

export interface HttpOptions extends HttpClientOptions {
  /** Sent with every request to the store's own origin, for example `authorization`. Never printed. */
  readonly headers?: Readonly<Record<string, string>>;
}

export class HttpStore implements ObjectStore {
  readonly url: string;
  readonly #client: HttpClient;
  readonly #base: URL;
  readonly #headers: Readonly<Record<string, string>>;

  constructor(url: string, options: HttpOptions = {}) {
    const { base, headers } = parse(url, options.headers);
    if (base.search !== "" || base.hash !== "") {
      throw new MinorfaultError("ERR_STORE_URL", `A store's URL has no query: ${plain(url)}`);
    }
    this.url = base.href.replace(/\/$/, "");
    this.#base = base;
    this.#headers = headers;
    this.#client = new HttpClient(options);
  }

  async open(key: string, signal?: AbortSignal): Promise<PageSource> {
    return HttpSource.open(this.#target(key), signal);
  }

  async openAt(key: string, offset: number, target: Uint8Array, signal?: AbortSignal): Promise<PageSource> {
    return HttpSource.openAt(this.#target(key), offset, target, signal);
  }

  async get(key: string, bytesMax: number, signal?: AbortSignal): Promise<Uint8Array> {
    return HttpSource.whole(this.#target(key), bytesMax, signal);
  }

  async put(key: string): Promise<void> {
    checkKey(key);
    throw this.#readOnly("written");
  }

  // biome-ignore lint/correctness/useYield: there is nothing to list, and the error comes where a listing begins
  async *list(prefix: string): AsyncIterable<ListedObject> {
    checkPrefix(prefix);
    throw new MinorfaultError("ERR_STORE_UNLISTED", `${this.url} is plain HTTP, which has no listing`);
  }

  async delete(key: string): Promise<void> {
    checkKey(key);
    throw this.#readOnly("deleted");
  }

  async close(): Promise<void> {
    await this.#client.close();
  }

  #target(key: string): HttpTarget {
    checkKey(key);
    const path = key.split("/").map(encodeURIComponent).join("/");
    const url = new URL(this.#base);
    url.pathname = `${this.#base.pathname.replace(/\/$/, "")}/${path}`;
    return { client: this.#client, url, headers: this.#headers, name: plain(url.href) };
  }

  #readOnly(what: string): MinorfaultError {
    return new MinorfaultError("ERR_STORE_READ_ONLY", `Nothing can be ${what} at ${this.url}`);
  }
}

/** One object by its URL, which may have a query (a signed one, say). Closing it closes the connections. */
export async function openHttpSource(
  url: string,
  options: HttpOptions = {},
  signal?: AbortSignal,
): Promise<PageSource> {
  const { base, headers } = parse(url, options.headers);
  const client = new HttpClient(options);
  try {
    const source = await HttpSource.open({ client, url: base, headers, name: plain(url) }, signal);
    return new OwningSource(source, client);
  } catch (error) {
    await client.close();
    throw error;
  }
}

/** Credentials in a URL become a header, so that no name or message can have them. */
function parse(
  text: string,
  given: Readonly<Record<string, string>> = {},
): { base: URL; headers: Readonly<Record<string, string>> } {
  if (!URL.canParse(text)) {
    throw new MinorfaultError("ERR_STORE_URL", `${plain(text)} is not a URL`);
  }
  const base = new URL(text);
  const { username, password } = base;
  base.username = "";
  base.password = "";
  if (username === "" && password === "") return { base, headers: given };
  const pair = `${decodeURIComponent(username)}:${decodeURIComponent(password)}`;
  return { base, headers: { authorization: `Basic ${Buffer.from(pair).toString("base64")}`, ...given } };
}

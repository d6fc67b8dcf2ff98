// The S3 client of AWS's SDK, which is loaded when the first s3:// store is opened: an optional package of 22 MB.
//
// Region, credentials and endpoint come by the client's own chain (AWS_REGION, AWS_PROFILE, AWS_ENDPOINT_URL_S3, files,
// instance roles); options go before. We never look at a credential. Refreshing those that expire may read files by
// libuv's threads: a pager whose guests may block them all runs in a process of its own.

import { Agent as HttpAgent } from "node:http";
import { Agent as HttpsAgent } from "node:https";
import { MinorfaultError } from "../base/errors.ts";
import { CONNECTIONS_DEFAULT, TIMEOUT_MS_DEFAULT } from "./http-client.ts";
import { rememberingLookup } from "./name-lookup.ts";

type Sdk = typeof import("@aws-sdk/client-s3");
export type S3Client = InstanceType<Sdk["S3Client"]>;

export interface S3Options {
  readonly region?: string;
  /** Another server than Amazon's. */
  readonly endpoint?: string;
  /** The bucket in the path instead of in the host's name. Default: with an endpoint of one's own. */
  readonly forcePathStyle?: boolean;
  /** LIMIT: how long one request may take. */
  readonly timeoutMs?: number;
  /** LIMIT: connections to the store. */
  readonly connections?: number;
  /** Bytes of a part of a multipart upload, at least 5 MiB (S3's own minimum). */
  readonly partBytes?: number;
  /** Instead of the client's chain, for tests and for programs that have their own vault. */
  readonly credentials?: { readonly accessKeyId: string; readonly secretAccessKey: string };
}

export interface S3 {
  readonly sdk: Sdk;
  /** Tries once: reads are tried again by whoever waits for them. */
  readonly reader: S3Client;
  /** Tries again by itself: everything else. */
  readonly client: S3Client;
  destroy(): void;
}

const PACKAGE = "@aws-sdk/client-s3";
const CONNECT_TIMEOUT_MS = 10_000;

export async function loadS3(options: S3Options): Promise<S3> {
  const sdk = await load();
  const endpoint = options.endpoint ?? process.env.AWS_ENDPOINT_URL_S3 ?? process.env.AWS_ENDPOINT_URL;
  const agent = {
    keepAlive: true,
    maxSockets: options.connections ?? CONNECTIONS_DEFAULT,
    lookup: rememberingLookup(),
  };
  const httpAgent = new HttpAgent(agent);
  const httpsAgent = new HttpsAgent(agent);
  const config = {
    ...(options.region === undefined ? {} : { region: options.region }),
    ...(options.endpoint === undefined ? {} : { endpoint: options.endpoint }),
    ...(options.credentials === undefined ? {} : { credentials: options.credentials }),
    forcePathStyle: options.forcePathStyle ?? endpoint !== undefined,
    // The newer checksums are Amazon's; other servers refuse or ignore what they don't know.
    requestChecksumCalculation:
      endpoint === undefined ? ("WHEN_SUPPORTED" as const) : ("WHEN_REQUIRED" as const),
    responseChecksumValidation: "WHEN_REQUIRED" as const,
    requestHandler: {
      httpAgent,
      httpsAgent,
      connectionTimeout: CONNECT_TIMEOUT_MS,
      requestTimeout: options.timeoutMs ?? TIMEOUT_MS_DEFAULT,
      throwOnRequestTimeout: true,
    },
  };
  const reader = new sdk.S3Client({ ...config, maxAttempts: 1 });
  const client = new sdk.S3Client(config);
  const destroy = () => {
    reader.destroy();
    client.destroy();
    httpAgent.destroy();
    httpsAgent.destroy();
  };
  return { sdk, reader, client, destroy };
}

async function load(): Promise<Sdk> {
  try {
    return await import("@aws-sdk/client-s3");
  } catch (cause) {
    throw new MinorfaultError("ERR_PACKAGE_MISSING", `s3:// needs the package ${PACKAGE}`, {
      cause,
      hint: `npm install ${PACKAGE}`,
    });
  }
}

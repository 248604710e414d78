// Requests to the node that served this page. Owns addresses, the API key and the text of errors.

const KEY = "meshllm-api-key";

export class RequestFailed extends Error {
  constructor(
    message: string,
    readonly status: number,
    readonly code: string | null = null,
  ) {
    super(message);
  }
}

// Relative to the page, so that the console works below any path of a reverse proxy.
export function address(path: string): string {
  return new URL(path, document.baseURI).href;
}

export function apiKey(): string {
  return localStorage.getItem(KEY) ?? "";
}

export function setApiKey(key: string): void {
  localStorage.setItem(KEY, key);
}

let tellKeyIsWanted: (reason: string) => void = () => undefined;

// Reading may be open where changing is not: whoever is refused for want of a key is asked for it then.
export function whenKeyIsWanted(tell: (reason: string) => void): void {
  tellKeyIsWanted = tell;
}

interface Init {
  body?: unknown; // makes it a POST
  signal?: AbortSignal;
  headers?: Record<string, string>;
}

export async function request(path: string, init: Init = {}): Promise<Response> {
  const headers = new Headers(init.headers);
  if (apiKey()) headers.set("Authorization", `Bearer ${apiKey()}`);
  const options: RequestInit = { headers, cache: "no-store" };
  if (init.signal) options.signal = init.signal;
  if (init.body !== undefined) {
    headers.set("Content-Type", "application/json");
    options.method = "POST";
    options.body = JSON.stringify(init.body);
  }
  const response = await fetch(address(path), options);
  if (response.ok) return response;
  const failed = await failure(response);
  if (failed.status === 401) tellKeyIsWanted(failed.message);
  throw failed;
}

// Every error of the node is {"error": {"message", "type", "param", "code"}}; a proxy in between may say otherwise.
async function failure(response: Response): Promise<RequestFailed> {
  const text = await response.text().catch(() => "");
  try {
    const error = (JSON.parse(text) as { error?: string | { message?: string; code?: string } }).error;
    if (typeof error === "string") return new RequestFailed(error, response.status); // of the lifecycle routes
    if (error?.message) return new RequestFailed(error.message, response.status, error.code ?? null);
  } catch {
    // not JSON
  }
  return new RequestFailed(`${response.status} ${response.statusText}`.trim(), response.status);
}

// Reads one JSON document. The type is the caller's word, which the contract tests keep.
export async function read<T>(path: string, signal?: AbortSignal): Promise<T> {
  const response = await request(path, signal ? { signal } : {});
  return (await response.json()) as T;
}

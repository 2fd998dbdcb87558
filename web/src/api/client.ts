// One way to ask the server: JSON in, JSON out, one sentence when it cannot be.

export class Refusal extends Error {
  constructor(message: string, readonly status: number) {
    super(message);
  }
}

async function read<T>(response: Response): Promise<T> {
  const body = await response.json().catch(() => ({ error: `The server answered ${response.status} without a word.` }));
  if (!response.ok) throw new Refusal(body.error ?? `The server answered ${response.status}.`, response.status);
  return body as T;
}

async function ask<T>(path: string, init: RequestInit): Promise<T> {
  let response: Response;
  try {
    response = await fetch(`/api${path}`, init);
  } catch (error) {
    if ((error as Error).name === "AbortError") throw error;
    throw new Refusal("The server does not answer. Is lensing serve still running?", 0);
  }
  return read<T>(response);
}

export type Query = Record<string, string | number | undefined | null>;

export function query(values: Query): string {
  const parts = new URLSearchParams();
  for (const [key, value] of Object.entries(values)) if (value != null && value !== "") parts.set(key, String(value));
  const text = parts.toString();
  return text ? `?${text}` : "";
}

export const get = <T>(path: string, values: Query = {}, signal?: AbortSignal) =>
  ask<T>(path + query(values), { signal });

export const send = <T>(method: string, path: string, body?: unknown, signal?: AbortSignal) =>
  ask<T>(path, {
    method,
    signal,
    headers: body === undefined ? {} : { "content-type": "application/json" },
    body: body === undefined ? undefined : JSON.stringify(body),
  });

export const post = <T>(path: string, body: unknown, signal?: AbortSignal) => send<T>("POST", path, body, signal);

// Server-sent events of a POST (EventSource can only GET).
export async function stream<T>(path: string, body: unknown, each: (event: T) => void, signal: AbortSignal) {
  const response = await fetch(`/api${path}`, {
    method: "POST",
    signal,
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  if (!response.ok || !response.body) {
    await read(response);
    return;
  }
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    rest += value;
    const frames = rest.split("\n\n");
    rest = frames.pop() ?? "";
    for (const frame of frames) if (frame.startsWith("data: ")) each(JSON.parse(frame.slice(6)) as T);
  }
}

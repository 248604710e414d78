// What a person orders: of models, of routing, and tokens to join by. Each is one request; errors come as they are.

import { read, request } from "./client";
import type { RoutingConfig } from "./routing";

export type Change = "load" | "unload" | "hold" | "drop" | "pin" | "unpin";

// `at` is the one node that is to load it; "" leaves that to the mesh.
export async function changeModel(id: string, change: Change, at = ""): Promise<void> {
  switch (change) {
    case "load":
      await request("v1/models/reload", { body: { model_id: id, ...(at ? { scope: at } : {}) } });
      return;
    case "unload":
    case "hold":
      await request("v1/models/unload", { body: { model_id: id, hold: change === "hold" } });
      return;
    case "pin":
    case "unpin":
      await request("v1/models/pin", { body: { model_id: id, pinned: change === "pin" } });
      return;
    case "drop": // the node stays, even without a model: whoever looks at its console wants to go on
      await request("mesh/drop", { body: { model: id, keep_running: true } });
  }
}

export async function makeToken(rights: string): Promise<string> {
  const response = await request("api/tokens", { body: { rights } });
  return ((await response.json()) as { token: string }).token;
}

export async function changeRouting(changes: Record<string, unknown>): Promise<RoutingConfig> {
  const response = await request("routing/config", { body: changes });
  return (await response.json()) as RoutingConfig;
}

export async function logText(model: string, lines: number, signal?: AbortSignal): Promise<string> {
  const query = new URLSearchParams({ tail: String(lines), ...(model ? { model } : {}) });
  return (await request(`api/logs?${query.toString()}`, signal ? { signal } : {})).text();
}

export const readRouting = (signal?: AbortSignal) => read<RoutingConfig>("routing/config", signal);

// What the page knows of its node. `reduce` is the only thing that changes it, and it is pure.

import type { StatusChanges, StatusDocument } from "../api/contract";
import { changed } from "./changes";
import type { Pace } from "./speeds";
import { paced } from "./speeds";

export interface NodeState {
  connection: "connecting" | "live" | "lost" | "refused";
  reason: string; // why there is no connection
  status: StatusDocument | null; // the last one stays on the screen when the node is gone
  documentAtMs: number; // when the whole document came: all durations count from there, also of what changed later
  paces: ReadonlyMap<string, Pace>; // of downloads, by model
  aliveAtMs: number | null; // when the node last gave a sign of life
}

export type NodeFact =
  | { kind: "document"; document: StatusDocument; atMs: number }
  | { kind: "changes"; changes: StatusChanges; atMs: number }
  | { kind: "alive"; atMs: number }
  | { kind: "lost"; reason: string }
  | { kind: "refused"; reason: string }
  | { kind: "retried" };

export const unknownNode: NodeState = {
  connection: "connecting",
  reason: "",
  status: null,
  documentAtMs: 0,
  paces: new Map(),
  aliveAtMs: null,
};

export function reduce(state: NodeState, fact: NodeFact): NodeState {
  switch (fact.kind) {
    case "document":
      return {
        connection: "live",
        reason: "",
        status: fact.document,
        documentAtMs: fact.atMs,
        paces: paced(state.paces, fact.document, fact.atMs),
        aliveAtMs: fact.atMs,
      };
    case "changes": {
      if (state.status === null) return state;
      const status = changed(state.status, fact.changes, (fact.atMs - state.documentAtMs) / 1000);
      const paces = paced(state.paces, status, fact.atMs);
      return { ...state, connection: "live", reason: "", status, paces, aliveAtMs: fact.atMs };
    }
    case "alive":
      return { ...state, aliveAtMs: fact.atMs };
    case "lost":
      return { ...state, connection: "lost", reason: fact.reason };
    case "refused":
      return { ...state, connection: "refused", reason: fact.reason };
    case "retried":
      return { ...state, connection: state.status ? "lost" : "connecting", reason: "" };
  }
}

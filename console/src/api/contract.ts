// The document of `GET /api/status` and of the event `status`: meshllm/api/status.py in TypeScript. What changes in it
// comes as events `changes`: meshllm/api/changes.py.
// States and phases are open sets here: a newer node may know one that this console does not.

export interface StatusDocument {
  node: NodeStatus;
  mesh: MeshStatus | null; // null before the node belongs to one
  members: MemberStatus[]; // this node first
  machine: MachineStatus | null; // null until it was measured
  engine: { kind: string; version: string; uses_gpu: boolean } | null;
  engine_failure: Failure | null;
  default_model: string | null;
  models: ModelStatus[]; // of this node
  mesh_models: MeshModel[]; // of all nodes, this one among them
  problems: { path: string; code: string; message: string }[];
  unresolved: { name: string; message: string }[];
  requested: string[];
  servers: ServerStatus[]; // adopted ones
  leaving: boolean;
  epoch: number;
}

// Everything that differs from what a follower has. An entry takes the place of the one with its id.
export interface StatusChanges {
  facts: Partial<Omit<StatusDocument, Section>>;
  entries: { members: MemberStatus[]; models: ModelStatus[]; mesh_models: MeshModel[] };
  order: Record<Section, string[] | null>; // ids; who is not among them is gone. null: as before
}

export type Section = "members" | "models" | "mesh_models";

export interface ServerStatus {
  name: string;
  url: string; // "" where the configuration's is none
  is_up: boolean;
  models: number;
  left_out: number;
  message: string; // what is wrong; "" while it answers
}

export interface NodeStatus {
  id: string;
  name: string;
  version: string;
  uptime_s: number;
  address: string;
}

export interface MeshStatus {
  id: string;
  name: string; // "" for most
  is_founder: boolean;
  rights: string[]; // of this node in it
}

export interface MemberStatus {
  id: string;
  short: string;
  name: string;
  is_me: boolean;
  state: string; // alive, suspect, dead, left
  for_s: number;
  role: string;
  rights: string[];
  connected: boolean;
  rtt_ms: number | null;
  lines: number; // warm connections with it on which tunnels go
  heard_s: number | null;
  vouched_by: string | null;
  why: string;
  addresses: string[];
  load: number; // 0 to 1
  memory: { total_bytes: number; free_bytes: number; gpu_total_bytes: number; gpu_free_bytes: number; gpus: number };
  hardware: { cores: number; gpus: string[] }; // nothing of a client
  engine_build: string;
  protocol: number;
  models: {
    id: string;
    digest: string;
    state: string;
    slots: number;
    busy: number;
    queued: number;
    context_tokens: number;
    split: ServedSplit | null; // where several nodes compute it together
  }[];
  lends: { model: string; host: string; memory_bytes: number }[]; // to hosts of models that it holds a part of
}

export interface ServedSplit {
  epoch: number;
  shares: { node: string; layers: number; memory_bytes: number }[]; // in the order of the layers, the host last
}

export interface MeshModel {
  id: string;
  warmth: string; // warm, loading, cold: as at the node where it is warmest
  held: boolean; // requests do not load it
  demand_per_min: number;
  size_bytes: number;
  capabilities: string[];
  nodes: { id: string; phase: string }[]; // those that serve it or have its file
  lack: string; // why nobody can load it; "" when somebody can
}

export interface MachineStatus {
  cores: number;
  memory_total_bytes: number;
  memory_free_bytes: number;
  gpus: { name: string; total_bytes: number; free_bytes: number }[];
  gpu_problem: string | null;
}

export interface Failure {
  fault: string;
  message: string;
}

export interface Progress {
  stage: string;
  share: number;
  done_bytes: number;
  total_bytes: number; // 0 while unknown
}

export interface ModelStatus {
  id: string;
  state: string;
  phase: string;
  kind: string; // "engine", or "adopted": at a server that this node does not run
  server: string; // "" for an engine
  wanted: boolean;
  held: boolean;
  dropped: boolean;
  pinned: boolean; // it stays in this node's memory, whatever else wants the room
  progress: Progress | null;
  failure: Failure | null;
  waiting: string;
  size_bytes: number;
  quantization: string;
  parameters: number;
  architecture: string;
  context_tokens: number;
  train_context_tokens: number;
  slots: number;
  memory_bytes: number;
  digest: string;
  requests: number;
  in_flight: number;
  pid: number | null;
  aliases: string[];
  capabilities: string[];
  ready_for_s: number | null;
  load_s: number;
  restarts: number;
  /** Why this node serves it: `explicit`, `request`, `unserved_on_disk`, …; null while it does not. */
  reason: string | null;
  /** The same in words, where the node gave it to itself. */
  why: string;
  retry_in_s: number | null;
}

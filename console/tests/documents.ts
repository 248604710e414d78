// Builders of status documents for tests: a good default, and what a test wants different.

import type { MeshModel, ModelStatus, StatusDocument } from "../src/api/contract";

export function aModel(changes: Partial<ModelStatus> = {}): ModelStatus {
  return {
    id: "tiny",
    state: "ready",
    phase: "ready",
    kind: "engine",
    server: "",
    wanted: true,
    held: false,
    dropped: false,
    pinned: false,
    progress: null,
    failure: null,
    waiting: "",
    size_bytes: 98_362_432,
    quantization: "Q4_1",
    parameters: 134_515_008,
    architecture: "llama",
    context_tokens: 2048,
    train_context_tokens: 2048,
    slots: 4,
    memory_bytes: 200_000_000,
    digest: "",
    requests: 0,
    in_flight: 0,
    pid: 4242,
    aliases: [],
    capabilities: ["chat"],
    ready_for_s: 12,
    load_s: 1.3,
    restarts: 0,
    reason: "explicit",
    why: "",
    retry_in_s: null,
    ...changes,
  };
}

export function aMeshModel(changes: Partial<MeshModel> = {}): MeshModel {
  return {
    id: "tiny",
    warmth: "warm",
    held: false,
    demand_per_min: 0,
    size_bytes: 98_362_432,
    capabilities: ["chat"],
    nodes: [{ id: "n1", phase: "ready" }],
    lack: "",
    ...changes,
  };
}

export function aDocument(changes: Partial<StatusDocument> = {}): StatusDocument {
  return {
    node: { id: "n1", name: "workbench", version: "0.1.0", uptime_s: 90, address: "127.0.0.1:9337" },
    machine: { cores: 2, memory_total_bytes: 8e9, memory_free_bytes: 6e9, gpus: [], gpu_problem: "no driver" },
    mesh: null,
    members: [],
    engine: { kind: "xllamacpp", version: "1", uses_gpu: false },
    engine_failure: null,
    default_model: "tiny",
    models: [aModel()],
    mesh_models: [aMeshModel()],
    problems: [],
    unresolved: [],
    requested: ["tiny"],
    servers: [],
    leaving: false,
    epoch: 1,
    ...changes,
  };
}

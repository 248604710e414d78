import { expect, test } from "vitest";

import { retryDelayMs } from "../src/api/follow";
import { bytes, duration, parameters, tokens } from "../src/state/format";
import { pieces } from "../src/state/prose";
import { buttonOf, canLoad, canUnload, chatModels, note, preferredModel, STAND_INS, tone } from "../src/state/selectors";
import { snippets } from "../src/state/snippets";
import { aDocument, aMeshModel, aModel } from "./documents";

const PHASES = "unloaded queued downloading loading ready draining stopping retrying failed held dropped".split(" ");

test.each(PHASES)("a model that is %s has at most one button", (phase) => {
  const model = aModel({ phase });

  expect(canLoad(model) && canUnload(model)).toBe(false);
  expect(canLoad(model) || canUnload(model)).toBe(!["draining", "stopping"].includes(phase));
});

test("a button says what it would do", () => {
  const words = ["unloaded", "failed", "ready", "downloading", "stopping"].map((phase) => buttonOf(aModel({ phase }))?.words);

  expect(words).toEqual(["Load", "Try again", "Unload", "Cancel", undefined]);
});

test("a phase that this console does not know is quiet, not an error", () => {
  expect(tone(aModel({ phase: "dreaming" }))).toBe("quiet");
});

test("the note says what matters most", () => {
  const failure = { fault: "bad_file", message: "the file ends early" };
  const progress = { stage: "downloading", share: 0.41, done_bytes: 41_000_000, total_bytes: 100_000_000 };

  expect(note(aModel({ phase: "failed", failure }))).toBe("the file ends early");
  expect(note(aModel({ phase: "retrying", failure, retry_in_s: 8 }), 3)).toBe("the file ends early · again in 5 s");
  expect(note(aModel({ phase: "ready", failure }), 60)).toBe("for 1 min");
  expect(note(aModel({ phase: "downloading", progress }))).toBe("41 % · 39.1 MiB of 95.4 MiB");
  expect(note(aModel({ phase: "queued", waiting: "capacity: needs 9.1 GB" }))).toBe("capacity: needs 9.1 GB");
});

test("chat offers warm models first and none that cannot talk", () => {
  const mesh_models = [
    aMeshModel({ id: "b", warmth: "cold" }),
    aMeshModel({ id: "y", warmth: "loading" }),
    aMeshModel({ id: "z" }),
    aMeshModel({ id: "embed", capabilities: ["embedding"] }),
    aMeshModel({ id: "kept", held: true }),
    aMeshModel({ id: "broken", warmth: "cold", nodes: [{ id: "n1", phase: "failed" }] }),
  ];

  expect(chatModels(aDocument({ mesh_models })).map((model) => model.id)).toEqual(["z", "y", "b"]);
});

// rows: CON-2
test("the chosen model stays chosen while it can answer, else the default one is used", () => {
  const status = aDocument({ mesh_models: [aMeshModel({ id: "a" }), aMeshModel({ id: "b" })], default_model: "b" });
  const nothing = aDocument({ mesh_models: [] });

  expect(preferredModel(status, "a")).toBe("a");
  expect(preferredModel(status, "gone")).toBe("b");
  expect(STAND_INS.map((name) => preferredModel(status, name))).toEqual(["default", "auto"]);
  expect([preferredModel(nothing, "a"), preferredModel(nothing, "auto"), preferredModel(null, "a")]).toEqual(["", "", ""]);
});

test("numbers read like numbers", () => {
  expect([bytes(0), bytes(1023), bytes(98_362_432), bytes(25e9)]).toEqual(["0 B", "1023 B", "93.8 MiB", "23.3 GiB"]);
  expect([tokens(2048), tokens(131_072), tokens(1000)]).toEqual(["2k", "128k", "1,000"]);
  expect([parameters(134_515_008), parameters(3.09e9), parameters(1.2e10), parameters(0)]).toEqual([
    "135M",
    "3.1B",
    "12B",
    "",
  ]);
  expect([duration(59.9), duration(3599), duration(7300), duration(90_000)]).toEqual([
    "59 s",
    "59 min",
    "2 h 1 min",
    "1 d 1 h",
  ]);
});

test("fenced code is told from text, also while it is still being written", () => {
  expect(pieces("Look:\n\n```py\nx = 1\n\ny = 2\n```\nDone.")).toEqual([
    { kind: "text", text: "Look:", language: "" },
    { kind: "code", text: "x = 1\n\ny = 2", language: "py" },
    { kind: "text", text: "Done.", language: "" },
  ]);
  expect(pieces("```\nhalf")).toEqual([{ kind: "code", text: "half", language: "" }]);
  expect(pieces("")).toEqual([]);
});

const PLACE = { root: "http://10.0.0.5:9337", model: "tiny", models: ["tiny", "big"], context_tokens: 8192, needsKey: false };

test("every snippet names the real address, and no key that is not needed", () => {
  for (const { title, text } of snippets(PLACE)) {
    expect(text, title).toContain("http://10.0.0.5:9337");
    if (title !== "Codex") expect(text, title).not.toContain("MESH_LLM_API_KEY"); // which cannot do without a variable
  }
  expect(snippets(PLACE)[0]?.text).toContain('"model": "tiny"');
  expect(snippets({ ...PLACE, needsKey: true }).every(({ text }) => text.includes("MESH_LLM_API_KEY"))).toBe(true);
});

test("programs that list models list those of this mesh, with what is known of their contexts", () => {
  const of = (wanted: string) => snippets(PLACE).find(({ title }) => title === wanted)?.text ?? "";

  const { provider, model } = JSON.parse(of("opencode")) as { provider: { mesh: { models: object } }; model: string };
  expect(provider.mesh.models).toEqual({ tiny: { name: "tiny", limit: { context: 8192, output: 2048 } }, big: { name: "big" } });
  expect(model).toBe("mesh/tiny");
  expect(of("Continue")).toContain('model: "big"');
});

test("a container does not look for the node on itself", () => {
  const inDocker = (root: string) => snippets({ ...PLACE, root }).find(({ title }) => title === "Open WebUI")?.text;

  expect(inDocker("http://127.0.0.1:9337")).toContain("http://host.docker.internal:9337/v1");
  expect(inDocker("http://10.0.0.5:9337")).toContain("http://10.0.0.5:9337/v1");
});

test("a name with quotes and spaces stays one word of the shell", () => {
  const evil = "a'; rm -rf ~ #";

  for (const { title, language, text } of snippets({ ...PLACE, model: evil, models: [evil] })) {
    if (language !== "sh" || !text.includes("rm -rf")) continue;
    expect(text.replaceAll(`'a'\\''; rm -rf ~ #'`, "WORD").replaceAll(`"a'\\''; rm -rf ~ #"`, "WORD"), title).not.toContain("rm -rf");
  }
});

test("attempts to connect again become rarer, but never rare", () => {
  expect([1, 2, 3, 20].map(retryDelayMs)).toEqual([500, 1000, 2000, 8000]);
});

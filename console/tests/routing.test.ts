// The routing documents that tests/api writes, and what the console makes of them.

import { expect, test } from "vitest";

import configDocument from "../../tests/api/documents/routing/config.json";
import explainDocument from "../../tests/api/documents/routing/explain.json";
import statsDocument from "../../tests/api/documents/routing/stats.json";
import type { ExplainDocument, RoutingConfig, RoutingStats } from "../src/api/routing";
import { outcomeOf } from "../src/state/decisions";
import { nothing, polled } from "../src/state/polled";
import type { Polled } from "../src/state/polled";
import { changesOf, fieldsOf } from "../src/state/routing-form";

const config: RoutingConfig = configDocument;
const stats: RoutingStats = statsDocument;
const explained: ExplainDocument = explainDocument;
const texts = Object.fromEntries(fieldsOf(config).map(({ key, text }) => [key, text]));

test("every key of the configuration is a field of its kind", () => {
  const kinds = Object.fromEntries(fieldsOf(config).map(({ key, kind }) => [key, kind]));

  expect(kinds).toMatchObject({
    strategy: "choice",
    enable_health_checks: "truth",
    max_retries: "number",
    ab_test_model_a: "text",
    weights: "json",
  });
  expect(kinds).not.toHaveProperty("version");
});

test("only what was changed is told, and an emptied field brings the default back", () => {
  const changed = { ...texts, strategy: "random", max_retries: " 5 ", weights: '{"a": 2}', max_load_threshold: "" };

  expect(changesOf(config, texts)).toEqual({});
  expect(changesOf(config, changed)).toEqual({ strategy: "random", max_retries: 5, weights: { a: 2 }, max_load_threshold: null });
  expect(changesOf(config, { enable_health_checks: "false" })).toEqual({ enable_health_checks: false });
});

test.each([
  [{ max_retries: "many" }, "max_retries has to be a number"],
  [{ weights: "{" }, "weights has to be JSON"],
])("%j is refused with its name", (wrong, message) => {
  expect(() => changesOf(config, { ...texts, ...wrong })).toThrow(message);
});

test("a strategy that this console does not know can stay", () => {
  const [field] = fieldsOf({ scope: "mesh", version: 1, strategy: "by_the_moon" });

  expect(field?.choices).toContain("by_the_moon");
});

test("a decision says what came of it", () => {
  const [decision] = explained.decisions;
  if (!decision) throw new Error("the document has no decision");

  expect(outcomeOf(decision)).toEqual({ word: "open", tone: "busy" });
  expect(outcomeOf({ ...decision, ok: true })).toEqual({ word: "answered", tone: "good" });
  expect(outcomeOf({ ...decision, ok: false })).toEqual({ word: "failed", tone: "bad" });
  expect(stats.total_routes).toBe(1);
});

test("what was good stays on the screen when the next try fails", () => {
  const good: Polled<number> = polled<number>(nothing, { kind: "came", value: 7, atMs: 5 });

  expect(polled(good, { kind: "failed", problem: "the node does not answer" })).toEqual({
    value: 7,
    atMs: 5,
    problem: "the node does not answer",
  });
  expect(polled(good, { kind: "came", value: 8, atMs: 9 })).toEqual({ value: 8, atMs: 9, problem: "" });
});

import { expect, test } from "vitest";

import type { QuotaDocument, QuotaReport } from "../src/api/quotas";
import { asConfig, usageOf } from "../src/state/quotas";
import { changesOf, fieldsOf } from "../src/state/routing-form";

const document: QuotaDocument = {
  model_id: "tiny",
  quotas: { max_ram_mb: 0, hourly_token_limit: 1000 },
  on_limit: "reject",
  soft_limits: [80, 90],
  emergency: false,
  timezone: "UTC",
  version: 3,
};

test("every limit is a field, and nothing that nobody can change", () => {
  const kinds = Object.fromEntries(fieldsOf(asConfig(document)).map(({ key, kind }) => [key, kind]));

  expect(kinds).toEqual({
    max_ram_mb: "number",
    hourly_token_limit: "number",
    on_limit: "choice",
    soft_limits: "json",
    emergency: "truth",
  });
});

test("only what was changed is told", () => {
  const changes = changesOf(asConfig(document), { hourly_token_limit: "2000", max_ram_mb: "0", on_limit: "queue", soft_limits: "[50]" });

  expect(changes).toEqual({ hourly_token_limit: 2000, on_limit: "queue", soft_limits: [50] });
});

test("meters show limits alone, and which one binds", () => {
  const report: QuotaReport = {
    mode: "normal",
    binding: "hourly_tokens",
    windows: {
      hourly_tokens: { used: 900, limit: 1000, percent: 90, resets_at: "14:00" },
      daily_tokens: { used: 900, limit: null, percent: 0, resets_at: "0:00" },
    },
    concurrent: { used: 1, limit: 4 },
  };

  expect(usageOf(report)).toEqual([
    { name: "hourly tokens", used: 900, limit: 1000, words: "until 14:00", isBinding: true },
    { name: "concurrent", used: 1, limit: 4, words: "", isBinding: false },
  ]);
  expect(usageOf({ mode: "normal", windows: {} })).toEqual([]);
});

// The documents that tests/api writes are this console's fixtures: a change of their shape fails here, in tsc first.

import { expect, test } from "vitest";

import empty from "../../tests/api/documents/empty.json";
import inAMesh from "../../tests/api/documents/in_a_mesh.json";
import loading from "../../tests/api/documents/loading.json";
import noEngine from "../../tests/api/documents/no_engine.json";
import serving from "../../tests/api/documents/serving.json";
import troubled from "../../tests/api/documents/troubled.json";
import type { StatusDocument } from "../src/api/contract";
import { buttonOf, chatModels, note, preferredModel, tone } from "../src/state/selectors";

const documents: [string, StatusDocument][] = [
  ["empty", empty],
  ["loading", loading],
  ["in a mesh", inAMesh],
  ["no engine", noEngine],
  ["serving", serving],
  ["troubled", troubled],
];

test.each(documents)("the document of a node that is %s is understood", (_, status) => {
  for (const model of status.models) {
    expect(["good", "busy", "bad", "quiet"]).toContain(tone(model));
    expect(note(model)).not.toMatch(/undefined|NaN|null/);
    expect(buttonOf(model)?.words ?? "").not.toBe("undefined");
  }
  const able = chatModels(status).map((model) => model.id);
  expect(able.includes(preferredModel(status, ""))).toBe(able.length > 0);
});

test("a ready model is good and can be unloaded", () => {
  const [ready] = (serving as StatusDocument).models.filter((model) => model.phase === "ready");

  expect(ready && tone(ready)).toBe("good");
  expect(ready && buttonOf(ready)).toEqual({ change: "unload", words: "Unload" });
});

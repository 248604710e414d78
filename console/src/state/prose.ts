// Splits an answer into paragraphs and fenced code, the two things that need different letters. Pure.

export interface Piece {
  kind: "text" | "code";
  text: string;
  language: string;
}

export function pieces(answer: string): Piece[] {
  const found: Piece[] = [];
  let lines: string[] = [];
  let fence: { mark: string; language: string } | null = null;
  const close = (kind: Piece["kind"], language: string) => {
    const text = lines.join("\n").replace(kind === "text" ? /^\n+|\n+$/g : /$^/g, "");
    if (text !== "" || kind === "code") found.push({ kind, text, language });
    lines = [];
  };
  for (const line of answer.split("\n")) {
    const mark = /^ {0,3}(`{3,}|~{3,})\s*([\w+#.-]*)\s*$/.exec(line);
    if (fence === null && mark?.[1]) {
      close("text", "");
      fence = { mark: mark[1], language: mark[2] ?? "" };
    } else if (fence !== null && mark?.[1]?.startsWith(fence.mark) && mark[2] === "") {
      close("code", fence.language);
      fence = null;
    } else {
      lines.push(line);
    }
  }
  close(fence ? "code" : "text", fence?.language ?? ""); // a fence that is still being written is code already
  return found;
}

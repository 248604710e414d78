// What a person pastes to use the node from elsewhere. Pure: the base address and the model come in.

export interface Snippet {
  title: string;
  language: string;
  text: string;
}

export function snippets(base: string, model: string, needsKey: boolean): Snippet[] {
  const key = needsKey ? 'os.environ["MESH_LLM_API_KEY"]' : '"none-needed"';
  const keyImport = needsKey ? "import os\n\n" : "";
  const header = needsKey ? ' \\\n  -H "Authorization: Bearer $MESH_LLM_API_KEY"' : "";
  const nodeKey = needsKey ? "process.env.MESH_LLM_API_KEY" : '"none-needed"';
  const question = `{"model": ${JSON.stringify(model)}, "messages": [{"role": "user", "content": "Hello"}]}`;
  return [
    {
      title: "curl",
      language: "sh",
      text: `curl ${base}/chat/completions \\\n  -H "Content-Type: application/json"${header} \\\n  -d '${question}'`,
    },
    {
      title: "Python, OpenAI SDK",
      language: "python",
      text: `${keyImport}from openai import OpenAI

client = OpenAI(base_url="${base}", api_key=${key})
answer = client.chat.completions.create(
    model=${JSON.stringify(model)},
    messages=[{"role": "user", "content": "Hello"}],
)
print(answer.choices[0].message.content)`,
    },
    {
      title: "JavaScript, OpenAI SDK",
      language: "javascript",
      text: `import OpenAI from "openai";

const client = new OpenAI({ baseURL: "${base}", apiKey: ${nodeKey} });
const answer = await client.chat.completions.create({
  model: ${JSON.stringify(model)},
  messages: [{ role: "user", content: "Hello" }],
});
console.log(answer.choices[0].message.content);`,
    },
    {
      title: "Any program that speaks to OpenAI",
      language: "sh",
      text: `export OPENAI_BASE_URL=${base}\nexport OPENAI_API_KEY=${needsKey ? "$MESH_LLM_API_KEY" : "none-needed"}`,
    },
  ];
}

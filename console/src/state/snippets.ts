// What a person pastes to use the node from elsewhere. Pure: addresses, names and numbers come in.

export interface Snippet {
  title: string;
  language: string;
  text: string;
  hint: string; // where it belongs; "" where that is clear
}

export interface Place {
  root: string; // of the node, without a slash at its end
  model: string;
  models: string[]; // of the mesh, the chosen one among them
  context_tokens: number; // of the chosen one; 0 while unknown
  needsKey: boolean;
}

const json = (value: unknown): string => JSON.stringify(value, null, 2);

export function snippets(place: Place): Snippet[] {
  return [...ofSdks(place), ...ofPrograms(place), ...ofAgents(place)];
}

const v1 = ({ root }: Place): string => `${root}/v1`;
const shellKey = ({ needsKey }: Place): string => (needsKey ? "$MESH_LLM_API_KEY" : "none-needed");
const pythonKey = ({ needsKey }: Place): string => (needsKey ? 'os.environ["MESH_LLM_API_KEY"]' : '"none-needed"');
const nodeKey = ({ needsKey }: Place): string => (needsKey ? "process.env.MESH_LLM_API_KEY" : '"none-needed"');
const fileKey = ({ needsKey }: Place): string => (needsKey ? "the value of MESH_LLM_API_KEY" : "none-needed");

function ofSdks(place: Place): Snippet[] {
  const { root, needsKey } = place;
  const model = JSON.stringify(place.model);
  const header = needsKey ? ' \\\n  -H "Authorization: Bearer $MESH_LLM_API_KEY"' : "";
  const os = needsKey ? "import os\n\n" : "";
  const question = `{"model": ${model}, "messages": [{"role": "user", "content": "Hello"}]}`;
  const curl = `curl ${v1(place)}/chat/completions \\\n  -H "Content-Type: application/json"${header} \\\n  -d '${question.replaceAll("'", "'\\''")}'`;
  const openai = `${os}from openai import OpenAI

client = OpenAI(base_url="${v1(place)}", api_key=${pythonKey(place)})
answer = client.chat.completions.create(
    model=${model},
    messages=[{"role": "user", "content": "Hello"}],
)
print(answer.choices[0].message.content)`;
  const openaiJs = `import OpenAI from "openai";

const client = new OpenAI({ baseURL: "${v1(place)}", apiKey: ${nodeKey(place)} });
const answer = await client.chat.completions.create({
  model: ${model},
  messages: [{ role: "user", content: "Hello" }],
});
console.log(answer.choices[0].message.content);`;
  const anthropic = `${os}from anthropic import Anthropic

client = Anthropic(base_url="${root}", api_key=${pythonKey(place)})
answer = client.messages.create(
    model=${model},
    max_tokens=256,
    messages=[{"role": "user", "content": "Hello"}],
)
print(answer.content[0].text)`;
  return [
    { title: "curl", language: "sh", text: curl, hint: "" },
    { title: "Python, OpenAI SDK", language: "python", text: openai, hint: "" },
    { title: "JavaScript, OpenAI SDK", language: "javascript", text: openaiJs, hint: "" },
    { title: "Python, Anthropic SDK", language: "python", text: anthropic, hint: "" },
  ];
}

function ofPrograms(place: Place): Snippet[] {
  const everything = `export OPENAI_BASE_URL=${v1(place)}\nexport OPENAI_API_KEY=${shellKey(place)}`;
  const openWebui = `docker run -d -p 3000:8080 --add-host=host.docker.internal:host-gateway \\
  -e OPENAI_API_BASE_URL=${v1(place).replace(/\/\/(localhost|127\.0\.0\.1)(?=[:/])/, "//host.docker.internal")} \\
  -e OPENAI_API_KEY=${shellKey(place)} \\
  -v open-webui:/app/backend/data ghcr.io/open-webui/open-webui:main`;
  const inDocker = /\/\/(localhost|127\.0\.0\.1)[:/]/.test(`${place.root}/`);
  const hint = inDocker ? "A container reaches this node only if it listens beyond this machine: start it with --host 0.0.0.0 and an API key." : "";
  return [
    { title: "Any program that speaks to OpenAI", language: "sh", text: everything, hint: "" },
    { title: "Open WebUI", language: "sh", text: openWebui, hint },
  ];
}

function ofAgents(place: Place): Snippet[] {
  const { root, model } = place;
  const claude = `export ANTHROPIC_BASE_URL=${root}
export ANTHROPIC_AUTH_TOKEN=${shellKey(place)}
export ANTHROPIC_DEFAULT_OPUS_MODEL=${quoted(model)}
export ANTHROPIC_DEFAULT_SONNET_MODEL=${quoted(model)}
export ANTHROPIC_DEFAULT_HAIKU_MODEL=${quoted(model)}
export API_TIMEOUT_MS=600000
export CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1
export CLAUDE_CODE_ATTRIBUTION_HEADER=0
claude`;
  const codex = `model = ${JSON.stringify(model)}
model_provider = "mesh"

[model_providers.mesh]
name = "mesh-llm"
base_url = "${v1(place)}"
env_key = "MESH_LLM_API_KEY"
wire_api = "responses"`;
  const goose = `export GOOSE_PROVIDER=openai
export GOOSE_MODEL=${quoted(model)}
export OPENAI_HOST=${root}
export OPENAI_API_KEY=${shellKey(place)}
goose session`;
  const always = place.needsKey ? "" : " It wants the variable MESH_LLM_API_KEY to be set: any value will do.";
  return [
    { title: "Claude Code", language: "sh", text: claude, hint: "" },
    { title: "opencode", language: "json", text: json(opencode(place)), hint: "In opencode.json." },
    { title: "Codex", language: "toml", text: codex, hint: `In ~/.codex/config.toml.${always}` },
    { title: "Goose", language: "sh", text: goose, hint: "" },
    { title: "Continue", language: "yaml", text: continueYaml(place), hint: "In ~/.continue/config.yaml." },
  ];
}

function opencode(place: Place): unknown {
  const limit = place.context_tokens ? { limit: { context: place.context_tokens, output: Math.floor(place.context_tokens / 4) } } : {};
  const models = Object.fromEntries(place.models.map((id) => [id, { name: id, ...(id === place.model ? limit : {}) }]));
  const options = { baseURL: v1(place), apiKey: place.needsKey ? "{env:MESH_LLM_API_KEY}" : "none-needed" };
  return {
    provider: { mesh: { npm: "@ai-sdk/openai-compatible", name: "mesh-llm", options, models } },
    model: `mesh/${place.model}`,
  };
}

function continueYaml(place: Place): string {
  const entry = (id: string) => `  - name: ${JSON.stringify(id)}
    provider: openai
    model: ${JSON.stringify(id)}
    apiBase: ${v1(place)}
    apiKey: ${JSON.stringify(fileKey(place))}`;
  return `name: mesh-llm\nversion: 1.0.0\nschema: v1\nmodels:\n${place.models.map(entry).join("\n")}`;
}

// A word of a shell: names come from other machines.
function quoted(word: string): string {
  return /^[\w./:@+-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

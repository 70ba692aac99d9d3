"""Small randomly initialised Hugging Face checkpoints of the true classes, written to a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

WORDS = (
    "a an the of in on dog cat man woman child ball grass water runs sits red black white two with and is "
    "photo picture what does image describe this one sentence user assistant question answer ."
).split()
SIDE = 32
_VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": SIDE,
    "patch_size": 8,
}
_TEXT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 96,
}


def make_checkpoint(family: str, folder: Path, seed: int = 0) -> Path:
    """Write a checkpoint of a family into ``folder`` as ``save_pretrained`` does; return the folder."""
    torch.manual_seed(seed)
    model, processors = FAMILIES[family]()
    for name, parameter in model.named_parameters():
        # The usual initialisation is so small that every picture, and every place, gets the same words.
        torch.nn.init.normal_(parameter, std=1.5 if "position" in name or "wpe" in name else 0.4)
    model.save_pretrained(folder)
    for processor in processors:
        processor.save_pretrained(folder)
    return folder


def _bert_tokenizer() -> Any:
    from transformers import BertTokenizer

    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", *WORDS]
    return BertTokenizer(vocab={word: number for number, word in enumerate(vocabulary)})


def _word_tokenizer(*added: str, start: bool = False, **named: str) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "<s>", "</s>", "<unk>", *WORDS]
    inner = Tokenizer(models.WordLevel({w: n for n, w in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    if start:
        inner.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", words.index("<s>"))]
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        extra_special_tokens=named,
    )
    tokenizer.add_tokens(list(added), special_tokens=True)
    return tokenizer


def _blip() -> tuple[Any, list[Any]]:
    from transformers import BlipConfig, BlipForConditionalGeneration, BlipImageProcessorPil, BlipProcessor

    tokenizer = _bert_tokenizer()
    text = {
        **_TEXT,
        "vocab_size": len(tokenizer),
        "encoder_hidden_size": 32,
        "bos_token_id": 5,
        "sep_token_id": 3,
        "eos_token_id": 3,
        "pad_token_id": 0,
    }
    config = BlipConfig(vision_config=_VISION, text_config=text, projection_dim=16, image_text_hidden_size=16)
    pictures = BlipImageProcessorPil(size={"height": SIDE, "width": SIDE})
    return BlipForConditionalGeneration(config), [BlipProcessor(pictures, tokenizer)]


def _blip2() -> tuple[Any, list[Any]]:
    from transformers import (
        Blip2Config,
        Blip2ForConditionalGeneration,
        Blip2Processor,
        BlipImageProcessorPil,
        OPTConfig,
    )

    tokenizer = _word_tokenizer("<image>", start=True)
    text = OPTConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        ffn_dim=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=96,
        word_embed_proj_dim=32,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    qformer = {**_TEXT, "vocab_size": len(tokenizer), "encoder_hidden_size": 32}
    config = Blip2Config(
        vision_config=_VISION,
        qformer_config=qformer,
        text_config=text.to_dict(),
        num_query_tokens=4,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    pictures = BlipImageProcessorPil(size={"height": SIDE, "width": SIDE})
    return Blip2ForConditionalGeneration(config), [Blip2Processor(pictures, tokenizer, num_query_tokens=4)]


def _vit_gpt2() -> tuple[Any, list[Any]]:
    from transformers import (
        GPT2Config,
        VisionEncoderDecoderConfig,
        VisionEncoderDecoderModel,
        ViTConfig,
        ViTImageProcessorPil,
    )

    tokenizer = _word_tokenizer()
    text = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=96,
        n_embd=32,
        n_layer=2,
        n_head=4,
        bos_token_id=1,
        eos_token_id=2,
    )
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(ViTConfig(**_VISION), text)
    config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = 1, 0, 2
    model = VisionEncoderDecoderModel(config)
    model.generation_config.decoder_start_token_id = 1
    model.generation_config.pad_token_id, model.generation_config.eos_token_id = 0, 2
    model.generation_config.no_repeat_ngram_size = 2
    return model, [ViTImageProcessorPil(size={"height": SIDE, "width": SIDE}), tokenizer]


def _git() -> tuple[Any, list[Any]]:
    from transformers import CLIPImageProcessorPil, GitConfig, GitForCausalLM, GitProcessor

    tokenizer = _bert_tokenizer()
    config = GitConfig(
        vision_config=_VISION,
        vocab_size=len(tokenizer),
        bos_token_id=2,
        eos_token_id=3,
        pad_token_id=0,
        **_TEXT,
    )
    pictures = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    return GitForCausalLM(config), [GitProcessor(pictures, tokenizer)]


def _florence2() -> tuple[Any, list[Any]]:
    from transformers import (
        CLIPImageProcessorPil,
        Florence2Config,
        Florence2ForConditionalGeneration,
        Florence2Processor,
    )

    tokenizer = _word_tokenizer(image_token="<image>")
    text = {
        "model_type": "bart",
        "vocab_size": len(tokenizer),
        "d_model": 32,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 48,
        "decoder_ffn_dim": 48,
        "max_position_embeddings": 96,
        "bos_token_id": 1,
        "pad_token_id": 0,
        "eos_token_id": 2,
        "decoder_start_token_id": 2,
        "forced_eos_token_id": 2,
    }
    vision = {
        "embed_dim": [8, 16, 24, 32],
        "num_heads": [1, 2, 3, 4],
        "num_groups": [1, 2, 3, 4],
        "depths": [1, 1, 1, 1],
        "patch_size": [7, 3, 3, 3],
        "patch_stride": [4, 2, 2, 2],
        "projection_dim": 32,
        "window_size": 2,
    }
    config = Florence2Config(
        vision_config=vision,
        text_config=text,
        image_token_id=tokenizer.image_token_id,
        is_encoder_decoder=True,
    )
    pictures = CLIPImageProcessorPil(
        size={"height": 64, "width": 64}, do_center_crop=False, crop_size={"height": 64, "width": 64}
    )
    pictures.image_seq_length = 5
    return Florence2ForConditionalGeneration(config), [Florence2Processor(pictures, tokenizer)]


_TEMPLATE = (
    "{% for message in messages %}{{ message.role }} {% for part in message.content %}"
    "{% if part.type == 'image' %}<image>{% else %} {{ part.text }}{% endif %}{% endfor %} {% endfor %}"
    "{% if add_generation_prompt %}assistant {% endif %}"
)


def _llava() -> tuple[Any, list[Any]]:
    from transformers import (
        CLIPImageProcessorPil,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    tokenizer = _word_tokenizer("<image>", start=True)
    tokenizer.padding_side = "left"
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        num_key_value_heads=2,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        **_TEXT,
    )
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**_VISION),
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
    )
    pictures = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    processor = LlavaProcessor(
        pictures,
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=_TEMPLATE,
    )
    return LlavaForConditionalGeneration(config), [processor]


FAMILIES: dict[str, Callable[[], tuple[Any, list[Any]]]] = {
    "blip": _blip,
    "blip-2": _blip2,
    "vit-gpt2": _vit_gpt2,
    "git": _git,
    "florence2": _florence2,
    "llava": _llava,
}

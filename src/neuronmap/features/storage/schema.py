"""The feature store on disk: files, columns, types, units. What is documented and what is written cannot differ: both are this table.

    <analysis>/
    ├── manifest.json            format, version, key, what was analysed, counts, settings, global figures, size and SHA-256 of each file
    ├── features.parquet         one row a feature: numbers and short texts (all filters and sorts)
    ├── details.parquet          one row a feature: lists (histograms, tokens, neighbours, logits), in row groups of 256
    ├── examples.parquet         one row an example, by feature, kind, group and rank
    ├── hints.parquet            one row a feature: firing class, label, rule and its scores (neuronmap.interpretation); may be missing
    ├── token_features.parquet   one row a (token, feature): which features fire on a token, by token
    ├── promoted.parquet         one row a (token, feature): which features promote a token, by token; missing without a model
    ├── clusters.parquet         one row a cluster of the map; may be missing
    ├── vocabulary.parquet       one row a token: bytes, text, count
    ├── documents.parquet        one row a document: where it comes from, where it starts
    ├── tokens.npy               uint16 or uint32 [C, T], every context once
    ├── kept.npy                 uint8 [C, ceil(T / 8)], numpy.packbits: 1 where a position was a row (not masked)
    └── verified.json            which files' digests were found right (see verified.py); no part of the store, may be deleted

Every file is read without NeuronMap. Activations are on the scale of the raw activation. What is rounded, and how: :data:`ROUNDING`.
token_features holds each feature's 32 tokens of the highest z.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["EXAMPLE_KINDS", "FORMAT", "RECORDS", "ROUNDING", "TABLES", "VERSION", "Column", "Table", "arrow_schema"]

FORMAT = "neuronmap-features"
VERSION = 1

EXAMPLE_KINDS = ("top", "quantile", "bin", "random", "hard")
"""Of an example: top = by maximum of its context; quantile = drawn from a group of equally many firings (group 0 the weakest);
bin = drawn from a bin of the histogram (group = the bin's number); random = a row where the feature is silent in the whole window;
hard = a row whose token is one of the feature's top tokens, where it does not fire."""

ROUNDING = """
`features.parquet` is not rounded: counts are exact, `max` is the float32 activation itself, and the other numbers are as they were
computed, in the type of their column. Quantiles are interpolated within a bin of the histogram, and what is of a sample (see `sampled`)
is an estimate. Fractions in the lists of `details.parquet` and in `token_features.parquet` and `promoted.parquet` are float32 rounded
to 13 significant bits (relative error at most 2**-13, about 0.012 %); counts there are exact. The `activation` of an example is exact;
`activations`, those of its window, are rounded to float16 over the unit (11 significant bits).
"""
"""What the numbers of the tables are worth, in words for the documentation."""


@dataclass(frozen=True)
class Column:
    """One column: name, Arrow type in words (see :func:`arrow_schema`), what it is."""

    name: str
    type: str
    about: str


@dataclass(frozen=True)
class Table:
    """One file: its name, order of rows, rows in a row group, columns."""

    file: str
    order: tuple[str, ...]
    row_group: int
    columns: tuple[Column, ...]


def _columns(*rows: tuple[str, str, str]) -> tuple[Column, ...]:
    return tuple(Column(*row) for row in rows)


TABLES: dict[str, Table] = {
    "features": Table(
        "features.parquet",
        ("feature",),
        8192,
        _columns(
            ("feature", "int32", "number of the feature, 0 .. F - 1"),
            ("status", "string", "never, rare (under 10 firings), alive or dense (density above 0.1)"),
            ("firings", "int64", "rows in which it is active"),
            ("density", "double", "firings over rows"),
            ("density_low", "double", "Wilson interval of the density at 95 %, rows taken as independent: low end"),
            ("density_high", "double", "high end; for a feature that never fired, what cannot be excluded"),
            ("mean", "double", "mean of its firings; null if it never fired"),
            ("std", "double", "standard deviation of its firings (population); null if it never fired"),
            ("max", "float", "largest activation; null if it never fired"),
            ("sum", "double", "sum of its activations"),
            ("q10", "float", "10 % of its firings are below, from the histogram, log-linear within a bin"),
            ("q50", "float", "median, likewise"),
            ("q90", "float", "likewise"),
            ("q99", "float", "likewise"),
            ("contexts", "int32", "different contexts among its sampled firings"),
            ("documents", "int32", "different documents among its sampled firings"),
            ("sampled", "int32", "firings that token statistics are of; all of them if it equals firings"),
            ("top_token", "int32", "its most frequent token"),
            ("top_token_text", "string", "the same, decoded"),
            ("top_token_share", "float", "share of sampled firings on it"),
            ("top_token_share_low", "float", "Wilson interval at 95 %"),
            ("top_token_share_high", "float", "high end"),
            ("top_lift_token", "int32", "the token with the highest z of lift"),
            ("top_lift_text", "string", "the same, decoded"),
            ("token_entropy", "float", "entropy of the token given firing, in bits, from the sample"),
            ("early_share", "float", "share of firings in the first sixteenth of the context"),
            ("decoder_norm", "float", "Euclidean norm of the decoder row"),
            ("encoder_norm", "float", "of the encoder column"),
            ("encoder_decoder_cosine", "float", "between the two"),
            ("encoder_bias", "float", "bias of the pre-activation; null for architectures without"),
            ("threshold", "float", "threshold of the activation; null for architectures without"),
            ("nearest", "int32", "feature with the highest decoder cosine"),
            ("nearest_cosine", "float", "that cosine"),
            (
                "coactive",
                "int32",
                "feature with the highest Jaccard index on the sampled tokens; null if there is none",
            ),
            ("coactive_jaccard", "float", "that index"),
            ("logit_mean", "float", "mean over the vocabulary of its direct logits; null without a model"),
            ("logit_std", "float", "standard deviation of the same"),
            ("logit_skew", "float", "skewness of the same"),
            ("logit_kurtosis", "float", "excess kurtosis of the same"),
            ("top_promoted", "int32", "token with the largest direct logit"),
            ("top_promoted_text", "string", "the same, decoded"),
            ("map_x", "float", "place on the map; null without one"),
            ("map_y", "float", "likewise"),
            ("cluster", "int32", "cluster on the map, -1 for none; null without a map"),
        ),
    ),
    "details": Table(
        "details.parquet",
        ("feature",),
        256,
        _columns(
            ("feature", "int32", "number of the feature"),
            ("histogram", "list<uint32>", "firings in each of 64 bins; the manifest holds the 65 edges"),
            ("positions", "list<uint32>", "firings in each sixteenth of the context"),
            ("tokens", "list<token>", "tokens it fires on, by z: count in the sample, share, lift, z"),
            ("previous_tokens", "list<token>", "tokens before its firings, within the context"),
            ("next_tokens", "list<token>", "tokens after its firings, within the context"),
            ("neighbours", "list<neighbour>", "features by decoder cosine, descending"),
            ("coactive", "list<pair>", "features by Jaccard index on the sampled tokens"),
            ("leads", "list<lagged>", "features that fire on the token after it, by lift"),
            ("follows", "list<lagged>", "features that fire on the token before it, by lift"),
            ("promoted", "list<logit>", "tokens with the largest direct logits, descending"),
            ("suppressed", "list<logit>", "tokens with the smallest, ascending"),
            (
                "logit_histogram",
                "list<uint32>",
                "tokens of the vocabulary in 64 bins of (logit - mean) / std from -8 to 8, ends open",
            ),
            ("input_tokens", "list<logit>", "tokens whose embedding, read by the encoder, scores highest"),
        ),
    ),
    "examples": Table(
        "examples.parquet",
        ("feature", "kind", "group", "rank"),
        16_384,
        _columns(
            ("feature", "int32", "number of the feature"),
            ("kind", "kind", "top, quantile, bin, random or hard"),
            ("group", "int8", "quantile group or bin of the histogram; 0 otherwise"),
            ("rank", "int16", "order within kind and group, from 0"),
            ("sequence", "uint32", "context"),
            ("position", "uint16", "place of the peak (for random and hard: of the row that was drawn) in the context"),
            ("activation", "float", "activation there; 0 for random and hard"),
            ("offsets", "list<int8>", "places of firings relative to position, ascending, within the window"),
            ("activations", "list<float>", "their activations, rounded to float16 over the unit"),
        ),
    ),
    "hints": Table(
        "hints.parquet",
        ("feature",),
        8192,
        _columns(
            ("feature", "int32", "number of the feature"),
            ("class", "string", "firing class, or 'none' with the reason in note"),
            ("label", "string", "short label of what it fires on; empty if there is none"),
            ("output_label", "string", "short label of what it promotes; empty if there is none"),
            ("rule", "string", "the rule that predicts firing, in words"),
            ("rule_json", "string", "the same for machines"),
            ("precision", "float", "share of the rule's positives that fire, held-out documents; null if undefined"),
            ("precision_low", "float", "95 % interval"),
            ("precision_high", "float", "high end"),
            ("recall", "float", "share of firings that the rule finds"),
            ("recall_low", "float", "95 % interval"),
            ("recall_high", "float", "high end"),
            ("f1", "float", "harmonic mean of the two"),
            ("f1_low", "float", "95 % interval"),
            ("f1_high", "float", "high end"),
            ("positives", "int32", "held-out firings it was scored on"),
            ("predicted", "int32", "held-out rows that the rule calls firing"),
            ("note", "string", "what a reader should know: too few firings, ..."),
        ),
    ),
    "token_features": Table(
        "token_features.parquet",
        ("token", "rank"),
        16_384,
        _columns(
            ("token", "int32", "token id"),
            ("rank", "int32", "order of the feature for this token, by share_of_token, from 0"),
            ("feature", "int32", "feature that fires on it"),
            ("count", "int32", "sampled firings of the feature on the token"),
            (
                "share_of_feature",
                "float",
                "share of the feature's firings that are on the token (estimate from the sample)",
            ),
            ("share_of_token", "float", "share of the token's rows on which the feature fires (estimate, at most 1)"),
            ("mean", "float", "mean activation of those sampled firings"),
        ),
    ),
    "promoted": Table(
        "promoted.parquet",
        ("token", "rank"),
        16_384,
        _columns(
            ("token", "int32", "token id"),
            ("rank", "int32", "order of the feature for this token, by logit, from 0"),
            ("feature", "int32", "feature that has the token among its promoted ones"),
            ("place", "int16", "place of the token in the feature's list, from 0"),
            ("logit", "float", "direct logit"),
        ),
    ),
    "clusters": Table(
        "clusters.parquet",
        ("cluster",),
        8192,
        _columns(
            ("cluster", "int32", "number of the cluster"),
            ("size", "int32", "features in it"),
            ("label", "string", "words shared by its features' hints or top tokens"),
            ("x", "float", "centre on the map"),
            ("y", "float", "likewise"),
        ),
    ),
    "vocabulary": Table(
        "vocabulary.parquet",
        ("token",),
        65_536,
        _columns(
            ("token", "int32", "token id"),
            ("bytes", "binary", "UTF-8 bytes that the token stands for; part of a character for some"),
            ("text", "string", "the same as text, U+FFFD for incomplete characters"),
            ("special", "bool", "whether it is a special token"),
            ("count", "int64", "rows with this token"),
        ),
    ),
    "documents": Table(
        "documents.parquet",
        ("document",),
        65_536,
        _columns(
            ("document", "int32", "number of the document in the token set"),
            ("id", "string", "file, file.jsonl:17, row"),
            ("sequence", "uint32", "context of its first token"),
            ("position", "uint16", "place of its first token there"),
        ),
    ),
}


RECORDS: dict[str, tuple[Column, ...]] = {
    "token": _columns(
        ("token", "int32", "token id"),
        ("count", "int32", "sampled firings with it"),
        ("share", "float", "share of the sampled firings"),
        ("lift", "float", "share over the token's share of all rows"),
        ("z", "float", "log-odds ratio to all rows, with an informative prior, over its standard deviation"),
    ),
    "logit": _columns(("token", "int32", "token id"), ("value", "float", "direct logit, or score")),
    "neighbour": _columns(
        ("feature", "int32", "the other feature"), ("cosine", "float", "between the two decoder rows")
    ),
    "pair": _columns(
        ("feature", "int32", "the other feature"),
        ("count", "int32", "sampled tokens on which both fire"),
        ("jaccard", "float", "count over the tokens on which either fires"),
        ("pmi", "float", "pointwise mutual information, bits"),
        ("given", "float", "P(the other fires | this one fires)"),
        ("implies", "float", "P(this one fires | the other fires)"),
    ),
    "lagged": _columns(
        ("feature", "int32", "the other feature"),
        ("count", "int32", "pairs of neighbouring sampled tokens"),
        ("given", "float", "P(the other fires there | this one fires here)"),
        ("lift", "float", "the same over what independence would give"),
    ),
}
"""Entries of the lists: type ``list<name>`` is a list of such structs."""


def arrow_schema(table: str) -> pa.Schema:
    """The Arrow schema of a table; column descriptions are in the fields' metadata under ``about``."""
    import pyarrow as pa

    types = {
        "bool": pa.bool_(),
        "int8": pa.int8(),
        "int16": pa.int16(),
        "int32": pa.int32(),
        "int64": pa.int64(),
        "uint16": pa.uint16(),
        "uint32": pa.uint32(),
        "float": pa.float32(),
        "double": pa.float64(),
        "string": pa.string(),
        "binary": pa.binary(),
        "kind": pa.dictionary(pa.int8(), pa.string()),
    }
    types |= {
        name: pa.struct([(column.name, types[column.type]) for column in columns]) for name, columns in RECORDS.items()
    }
    types |= {f"list<{name}>": pa.list_(kind) for name, kind in types.items()}
    return pa.schema(
        [
            pa.field(column.name, types[column.type], metadata={"about": column.about} if column.about else None)
            for column in TABLES[table].columns
        ]
    )

// What the server answers. Requests are typed by schema.d.ts, which is made from the OpenAPI document.

export type Pair = [number, number];

export interface DictionaryFacts {
  name: string;
  indexed: boolean | null;
  site?: string;
  architecture?: string;
  d_sae?: number;
  wiring?: string;
  text?: { name: string; rows: number } | null;
  statistics?: { fvu: number; l0: number; corpus: string; dead_share: number } | null;
}
export interface House {
  version: string;
  model: {
    name: string; n_layers: number; n_heads: number; d_model: number; d_vocab: number; context: number | null;
    dtype: string; device: string; chat: boolean; tuned_lens: boolean; neurons: string[];
  };
  first: string | null;
  dictionaries: DictionaryFacts[];
  prompt: string;
  shipped: boolean;
  embedding: string | null;
  pairs: { dictionary: string; senses: [string, string]; translation: [string, string] } | null;
}
export interface Token { id: number; text: string; special: boolean }
export interface Guess { id: number; word: string; p: number }
export interface Lens {
  layers: number[]; ids: number[][][][]; strings: string[][][][]; probs: number[][][][]; entropy: number[][][];
  kl: number[][][]; answer_strings: string[][]; rank: number[][][]; lead_layer: number[][];
}
export interface Read {
  tokens: Token[]; position: number; vectors: Record<string, number[]>; norms: Record<string, number[]>;
  lens: Lens; next: Guess[];
}
export interface Effect {
  kind: "latent" | "error" | "bias"; latent: number | null; activation: number | null; length: number; effect: number;
}
export interface Beyond {
  dictionary: string; site: string; latent: number; why: { why: string; concept?: string };
  effects: { token: string; target_word: string; log_p: number; latents: Effect[]; error: Effect; bias: Effect };
  labels: Record<string, string>;
  splice: { words: { id: number; word: string; before: number; after: number }[]; kl: number; kl_mean: number; loss: number | null; loss_spliced: number | null };
  ledger: { token: string; not_reconstructed: number | null; kl: number | null }[];
  not_reconstructed: number; corpus: number | null;
}
export interface Why {
  metric: string; whole: number;
  sites: { site: string; latents: number; error: number; moved: number; gap: number }[];
  nodes: { latent: number | null; effect: number; change: number; label: string | null }[];
}
export interface Notch { strength: number; share_of_norm: number; table: Guess[]; watched: Record<string, number>; kl: number }
export interface Slide {
  latent: number; unit_size: number; watch: Record<string, string[]>;
  directions: { name: string; latent: number | null; notches: Notch[] }[]; left_out: string[];
}
export interface DoseLine { strength: number; text: string; coherence_cost: number; se: number | null; verdict: string; impossible: number | null }
export interface Dose { directions: { name: string; latent: number | null; doses: DoseLine[] }[]; left_out: string[] }
export interface Example { row: number; document: number; value: number; peak: number; tokens: string[]; values: number[] }
export interface Group { low: number; high: number; n: number; mass: number; examples: Example[] }
export interface Label { id: number; text: string; method: string; by: string; score: number | null; n: number | null }
export interface LatentPage {
  latent: {
    latent: number; count: number; density: number; mean: number; max: number; histogram: number[];
    histogram_edges: [number, number]; groups: Group[]; fires_on: [string, number, number, number][];
    promoted: [string, number][]; suppressed: [string, number][]; logit_histogram: number[];
    logit_histogram_edges: [number, number] | null; near: Record<string, Pair[]>;
  };
  d_sae: number; dictionary: string; site: string; labels: Label[]; note: string; tags: string[];
  near_labels: Record<string, string>;
  known: { concept: string; f1: number; auroc: number; average_precision: number; n: number } | null;
  max_on_corpus: number | null; text: { name: string; rows: number }; imported: boolean;
}
export interface IndexFacts {
  name: string; indexed: boolean; tokens: number; latents: number; dead: number; rare: number; l0: number; text: string;
  columns: Record<string, string>; missed: number;
}
export interface Page { total: number; latents: number[]; columns: Record<string, (number | null)[]>; labels: (string | null)[] }
export interface Places { x: number[]; y: number[]; share: number; colour: (number | null)[] }
export interface Fired {
  latent: number; max: number; at: number; total: number; n: number; label: string | null; share: number | null;
  density: number | null;
}
export interface Inference { tokens: string[]; special: boolean[]; latents: Pair[][]; hits: Fired[] }
export interface TextRead {
  tokens: string[]; special: boolean[]; latents: Pair[][]; missed: (number | null)[]; kl: (number | null)[];
  loss: (number | null)[]; loss_spliced: (number | null)[]; lost: [string, number, number][][]; corpus: number | null;
  fired: { latent: number; max: number; at: number; n: number }[]; labels: Record<string, string>;
}
export interface Context { tokens: string[]; values: number[]; peak: number; value: number }
export interface Unit {
  site: string; index: number; width: number; text: string; tokens: number; mean: number; std: number; min: number;
  max: number; kurtosis: number; histogram: number[]; edges: [number, number]; top: Context[]; bottom: Context[];
  top_words: [string, number, number, number][]; bottom_words: [string, number, number, number][];
}
export interface Compared {
  same_site: boolean; decoder: number | null; encoder: number | null; nearest: Pair[];
  labels: Record<string, string>;
}
export interface Patched {
  rows: string[]; columns: string[]; grid: (number | null)[][]; metric: string; clean: number; corrupt: number;
  top: { node: string; effect: number }[]; words: string[]; other_tokens: string[]; tokens: string[];
}
export interface Line { name: string; share: number; se: number }
export interface Ledger {
  dictionary: string; site: string; text: string; l0: number; d_sae: number;
  variance: { fvu: Line; lines: Line[]; probe: Line[]; engels: number; orthogonal: number; n: number; documents: number; warnings: string[] };
  beside: Record<string, number | null>;
  where: { top: number; gini: number; words: [string, number, number][] };
  seeds: { dictionaries: string[]; fvu: Line; systematic: Line; run_specific: Line; ensemble: number } | null;
  says: string[];
}
export interface Job {
  id: string; what: string; state: "running" | "done" | "failed" | "cancelled"; step: string; done: number;
  total: number | null; unit: string; rate: number; error: string | null;
}

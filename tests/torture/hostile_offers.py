"""Every hostile offer there is."""

from torture import hostile_arrays, hostile_data, hostile_models, hostile_settings
from torture.hostile_offer import Home, Offer


def offers(home: Home) -> list[Offer]:
    families = (
        *(hostile_arrays.arrays, hostile_arrays.embeddings),
        *(hostile_models.weights, hostile_models.descriptions, hostile_models.tokenizers, hostile_models.open_clips),
        *(hostile_data.manifests, hostile_data.tables, hostile_data.shards, hostile_data.captions),
        *(hostile_settings.configurations, hostile_settings.runs, hostile_settings.collections),
    )
    return [offer for family in families for offer in family(home)]

"""The event encoder and the model of events that ship with earmark fit each other."""

from __future__ import annotations

from encoders.bundle import load_bundle
from index.event_model import SHIPPED_MODEL, EventModel


def test_the_shipped_encoder_needs_the_features_of_the_others() -> None:
    event = load_bundle("event")
    assert (event.name, event.kind, event.dim) == ("event", "siamese", 256)
    event.check_spec(load_bundle("fingerprint").spec)
    assert load_bundle("event", "float32").precision == "float32"


def test_the_shipped_model_is_for_the_shipped_encoder_and_has_thirty_classes() -> None:
    model = EventModel.load(SHIPPED_MODEL)
    assert model.column == "event"
    assert model.encoder.sha256 == load_bundle("event", model.encoder.precision).sha256
    assert len(model.names) >= 30
    trained_on = load_bundle("event").meta["training"]["classes"]
    assert set(model.names) <= set(trained_on)

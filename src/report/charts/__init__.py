"""Charts that several sections draw, as Vega-Lite specifications."""

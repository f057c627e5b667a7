"""Charts shared by several sections, as Vega-Lite specifications."""

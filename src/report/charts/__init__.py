"""What the charts of several sections share, as Vega-Lite specifications."""

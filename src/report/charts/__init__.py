"""Charts as Vega-Lite specifications, one function each: tables in, a chart out."""

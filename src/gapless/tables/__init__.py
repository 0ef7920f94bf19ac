"""Tables of any format as rows of cells: CSV, JSON, Parquet, Arrow, Excel's habits included."""

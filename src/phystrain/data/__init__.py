"""Reading, checking, splitting and batching of labelled structures."""

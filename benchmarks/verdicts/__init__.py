"""How far a verdict can be believed: beside longer runs, on other models, and what it costs."""

"""Flows: the stages as Prefect flows, the recipes, and the command line."""

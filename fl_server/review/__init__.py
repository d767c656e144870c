"""The reviewer's bench. Imports `model` only: a reviewer must not trust what is reviewed."""

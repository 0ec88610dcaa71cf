"""The pages: one module a family, each route a typed context and a template. :mod:`neuronmap.web.pages.routes` has them all."""

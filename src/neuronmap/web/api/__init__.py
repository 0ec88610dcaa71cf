"""The routes for scripts under ``/api``: the same data as the pages, and jobs. :mod:`neuronmap.web.api.routes` has them all."""

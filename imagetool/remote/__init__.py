"""A registry as a store, over HTTP. The one package that imports requests and urllib3."""

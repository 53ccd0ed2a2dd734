"""The method: a cloud model reads a prompt once and gates a shared pool of experts.

`Generator.load(folder).compile(prompts)` gives recipes, `EdgeModel` answers under them,
`Pool` holds what they mix. Import from the modules: `generator`, `edge`, `pool`, `export`.
"""

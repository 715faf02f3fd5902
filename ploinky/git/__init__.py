"""The Git room: from a repository's URL to a directory with one commit's files.

In come a `ploinky.source_values.GitSource` and a commit; out go commit ids, listings
and checkouts (`ploinky.leader_interfaces.ISource`).  `source` is the door and the only
part that knows Deferreds; everything below it blocks, is given `Bounds`, and
runs in a pool of threads.  This room knows nothing of deployments or stores.

::

    source         what is fresh, who may read it, what is tried again
      urls         which URLs and refs are let in
      fetches      who shares a fetch
      mirrors      one bare repository per URL: fetched, healed, forgotten
      commits      ref to commit
      checkouts    commit to directory
      agents       commit to listing
        trees        what a commit holds
        credentials  a token or key, lent to one run of git
        problems     git's words to ours
        program      running git: its world and its end
        bounds       what work may cost
"""

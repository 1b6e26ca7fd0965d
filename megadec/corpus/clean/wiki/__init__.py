"""Wikitext -> text: the parts that know MediaWiki."""

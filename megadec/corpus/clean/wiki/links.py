"""What a link shows: its label, or its target without prefixes; files, categories and links to other languages nothing.

A colon in a title is part of it, unless a known namespace, language or sister project stands before it.
"""

import re

_FILES = frozenset(("file", "image", "media", "文件", "檔案", "档案", "图像", "圖像", "圖片", "图片", "媒体", "媒體"))
_CATEGORIES = frozenset(("category", "cat", "分类", "分類"))
_SPECIAL = frozenset(("special", "特殊"))
# The editions of Wikipedia, as in https://meta.wikimedia.org/wiki/List_of_Wikipedias, and old codes of some.
_LANGUAGE_CODES = """
    aa ab ace ady af ak als alt am ami an ang ann anp ar arc ary arz as ast atj av avk awa ay az azb ba ban bar
    bat-smg bbc bcl bdr be be-tarask be-x-old bew bg bh bi bjn blk bm bn bo bpy br bs btm bug bxr ca cbk-zam cdo
    ce ceb ch cho chr chy ckb co cr crh cs csb cu cv cy da dag de dga din diq dsb dtp dty dv dz ee el eml en eo es
    et eu ext fa fat ff fi fiu-vro fj fo fon fr frp frr fur fy ga gag gan gcr gd gl glk gn gom gor got gpe gsw gu
    guc gur guw gv ha hak haw he hi hif ho hr hsb ht hu hy hyw hz ia iba id ie ig igl ii ik ilo inh io is it iu ja
    jam jbo jv ka kaa kab kbd kbp kcg kg kge ki kj kk kl km kn knc ko koi kr krc ks ksh ku kus kv kw ky la lad lb
    lbe lez lfn lg li lij lld lmo ln lo lrc lt ltg lv lzh mad mai map-bms mdf mg mh mhr mi min mk ml mn mni mnw mo
    mos mr mrj ms mt mus mwl my myv mzn na nah nan nap nds nds-nl ne new ng nia nl nn no nb nov nqo nr nrm nso nup
    nv ny oc olo om or os pa pag pam pap pcd pcm pdc pfl pi pih pl pms pnb pnt ps pt pwn qu rm rmy rn ro roa-rup
    roa-tara rsk ru rue rup rw sa sah sat sc scn sco sd se sg sgs sh shi shn shy si simple sk skr sl sm smn sn so
    sq sr srn ss st stq su sv sw syl szl szy ta tay tcy tdd te tet tg th ti tig tk tl tly tn to tokipona tpi tr
    trv ts tt tum tw ty tyv udm ug uk ur uz ve vec vep vi vls vo vro wa war wo wuu xal xh xmf yi yo yue za zea zgh
    zh zh-cn zh-tw zh-classical zh-min-nan zh-yue zu
"""
_LANGUAGES = frozenset(_LANGUAGE_CODES.split())
_PLAIN_LINK = re.compile(r"\[\[(?:[^\[\]{}<\n|:]+\|)?([^\s\[\]{}<|:=_#][^\[\]{}<\n|:=_#]*)\]\]")
_MOST_PREFIXES = 4  # :w:en:Tea has three
_PROJECT_NAMES = """
    w wikipedia wikt wiktionary s wikisource b wikibooks n wikinews q wikiquote d wikidata v wikiversity m meta c
    commons mw voy wikivoyage species 维基百科 維基百科
"""
_PROJECTS = frozenset(_PROJECT_NAMES.split())


def show_plain_links(wikitext: str) -> tuple[str, int]:
    """The text with every link that is no more than words replaced by them, and the number of such links.

    A split and a join in C: half of a page's marks are such links. One with a colon, a blank label or what may mean
    something else where it stands (an equals sign in a template's argument) is left to `link_text`.
    """
    parts = _PLAIN_LINK.split(wikitext)
    return "".join(parts), len(parts) // 2


def link_text(target: str, label: str | None) -> tuple[str, str]:
    """What `[[target|label]]` shows, and what the rest is counted as: links, files, categories.

    `label` is None where there is no bar; empty after the pipe trick (`[[甲 (乙)|]]` shows 甲).
    """
    prefix, colon, _ = target.partition(":")
    if not colon and label and (text := label.strip()):
        return text, "links"
    if colon and prefix.strip():
        namespace = prefix.strip().lower()
        if (kind := hidden_kind(namespace)) or namespace in _LANGUAGES:
            return "", kind or "links"
    if label and (text := label.strip()):
        return text, "links"
    if colon:
        target = _without_prefixes(target)
    title = target.strip().lstrip("#").replace("_", " ").strip()
    return title if label is None else _pipe_trick(title), "links"


def hidden_kind(namespace: str) -> str:
    """`files` or `categories` for a namespace (lower case) whose links show nothing in the text, `links` for special
    pages, an empty string for all others."""
    if namespace in _FILES:
        return "files"
    return "categories" if namespace in _CATEGORIES else "links" if namespace in _SPECIAL else ""


def _without_prefixes(target: str) -> str:
    """`:en:Tea` -> `Tea`."""
    for _ in range(_MOST_PREFIXES):
        prefix, colon, rest = target.partition(":")
        namespace = prefix.strip().lower()
        if not colon or (namespace and namespace not in _PROJECTS and namespace not in _LANGUAGES):
            break
        target = rest
    return target


def _pipe_trick(title: str) -> str:
    """`甲 (乙)` -> `甲`, `甲, 乙` -> `甲`."""
    if title.endswith((")", "）")):
        bracket = max(title.rfind("("), title.rfind("（"))
        return title[:bracket].rstrip() if bracket > 0 else title
    return title.partition(",")[0].rstrip() or title

"""What several folders of tests share: tiny models, runs and texts, and real processes."""

from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]

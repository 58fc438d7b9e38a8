"""Speed against peers and floors, and quality against baselines; see docs/evidence/performance.md."""

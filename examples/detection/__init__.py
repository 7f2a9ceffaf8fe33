"""Detection as a task of one's own: COCO folders, an elastic SSDlite, losses, mAP; see detection.ipynb."""

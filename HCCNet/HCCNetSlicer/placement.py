"""Where a result's nodes stand in the subject hierarchy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import slicer

from HCCNetSlicer.hierarchy import Hierarchy

FOLDER = "HCCNet result"
_MARK = "HCCNet.folder"  # on folders that were made here: others are not ours to remove


def study_of(scene: Any, volumes: Iterable[Any]) -> int:
    """The study item of the first of the volumes that has an item, else that item's parent, else the scene's item."""
    tree, item = Hierarchy(scene).node, _first_item(scene, volumes)
    if not item:
        return int(tree.GetSceneItemID())
    level = slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMLevelStudy()
    return int(tree.GetItemAncestorAtLevel(item, level) or tree.GetItemParent(item))


def add_folder(scene: Any, volumes: Iterable[Any]) -> int:
    """Makes the result's folder under the patient of the first of the volumes that has one, else at the top."""
    tree, item = Hierarchy(scene).node, _first_item(scene, volumes)
    level = slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMLevelPatient()
    patient = tree.GetItemAncestorAtLevel(item, level) if item else 0
    folder = tree.CreateFolderItem(patient or tree.GetSceneItemID(), FOLDER)
    tree.SetItemAttribute(folder, _MARK, "1")
    return int(folder)


def place(scene: Any, node: Any, parent: int) -> None:
    """Puts a node under an item. In a running Slicer the node may have an item already."""
    tree = Hierarchy(scene).node
    item = tree.GetItemByDataNode(node)
    if item == tree.GetInvalidItemID():
        tree.CreateItem(parent, node)
    else:
        tree.SetItemParent(item, parent)


def place_beside(scene: Any, node: Any, other: Any) -> None:
    """Puts a node under the item that another node is under."""
    tree = Hierarchy(scene).node
    place(scene, node, tree.GetItemParent(tree.GetItemByDataNode(other)))


def take_out(scene: Any, nodes: Iterable[Any]) -> None:
    """Removes the nodes' items, not the nodes, and then those of our folders that hold nothing any more."""
    tree = Hierarchy(scene).node
    parents = set()
    for node in nodes:
        item = tree.GetItemByDataNode(node)
        if item != tree.GetInvalidItemID():
            parents.add(tree.GetItemParent(item))
            tree.RemoveItem(item, False, False)
    _remove_empty(tree, parents)


def remove_empty_folders(scene: Any) -> None:
    """Removes all of our folders that hold nothing."""
    hierarchy = Hierarchy(scene)
    _remove_empty(hierarchy.node, hierarchy.below(hierarchy.node.GetSceneItemID()))


def _remove_empty(tree: Any, items: Iterable[int]) -> None:
    for item in items:
        if tree.HasItemAttribute(item, _MARK) and not tree.GetNumberOfItemChildren(item):
            # With its data node: hiding a folder gives it a display node.
            tree.RemoveItem(item, True, False)


def _first_item(scene: Any, volumes: Iterable[Any]) -> int:
    """The first volume's item, 0 (no item's number) where none has one."""
    tree = Hierarchy(scene).node
    return next((int(item) for item in map(tree.GetItemByDataNode, volumes) if item != tree.GetInvalidItemID()), 0)

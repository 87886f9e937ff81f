"""The zoo: networks by name, one file a family, built for any input size and number of classes.

In: a name, an input shape without the batch axis, a number of classes. Out: a module and, in sentences, what was
changed to fit it. The table needs no framework; the family's file is imported when a network is built.
"""

from __future__ import annotations

from .entry import ZooEntry

ZOO: dict[str, ZooEntry] = {
    "lenet-300-100": ZooEntry(
        family="lenet",
        function="lenet_300_100",
        input_shape=(1, 28, 28),
        classes=10,
        summary="two hidden fully connected layers; 266,200 weights (LeCun et al. 1998)",
    ),
    "lenet-5-caffe": ZooEntry(
        family="lenet",
        function="lenet_5_caffe",
        input_shape=(1, 28, 28),
        classes=10,
        summary="two 5x5 convolutions and two fully connected layers; 430,500 weights (Caffe's LeNet-5)",
    ),
    "lenet-s4": ZooEntry(
        family="lenet",
        function="lenet_s4",
        input_shape=(1, 28, 28),
        classes=10,
        summary="two 3x3 convolutions and three fully connected layers; 59,838 weights (Paganini and Forde 2020)",
    ),
    "conv-2": ZooEntry(
        family="conv_n",
        function="conv_2",
        input_shape=(3, 32, 32),
        classes=10,
        summary="two 3x3 convolutions and three fully connected layers; 4,300,992 weights (Frankle and Carbin 2019)",
    ),
    "conv-4": ZooEntry(
        family="conv_n",
        function="conv_4",
        input_shape=(3, 32, 32),
        classes=10,
        summary="four 3x3 convolutions and three fully connected layers; 2,425,024 weights (Frankle and Carbin 2019)",
    ),
    "conv-6": ZooEntry(
        family="conv_n",
        function="conv_6",
        input_shape=(3, 32, 32),
        classes=10,
        summary="six 3x3 convolutions and three fully connected layers; 2,261,184 weights (Frankle and Carbin 2019)",
    ),
    "resnet-20": ZooEntry(
        family="resnet_cifar",
        function="resnet_20",
        input_shape=(3, 32, 32),
        classes=10,
        summary="CIFAR residual network, option A shortcuts; 268,336 weights (He et al. 2016)",
    ),
    "resnet-32": ZooEntry(
        family="resnet_cifar",
        function="resnet_32",
        input_shape=(3, 32, 32),
        classes=10,
        summary="CIFAR residual network, option A shortcuts; 461,872 weights (He et al. 2016)",
    ),
    "resnet-56": ZooEntry(
        family="resnet_cifar",
        function="resnet_56",
        input_shape=(3, 32, 32),
        classes=10,
        summary="CIFAR residual network, option A shortcuts; 848,944 weights (He et al. 2016)",
    ),
    "wrn-22-2": ZooEntry(
        family="wide_resnet",
        function="wrn_22_2",
        input_shape=(3, 32, 32),
        classes=10,
        summary="wide residual network of width 2; 1,076,912 weights (Zagoruyko and Komodakis 2016)",
    ),
    "wrn-28-10": ZooEntry(
        family="wide_resnet",
        function="wrn_28_10",
        input_shape=(3, 32, 32),
        classes=10,
        summary="wide residual network of width 10; 36,461,232 weights (Zagoruyko and Komodakis 2016)",
    ),
    "vgg-16": ZooEntry(
        family="vgg",
        function="vgg_16",
        input_shape=(3, 32, 32),
        classes=10,
        summary="CIFAR VGG-16, batch norm, one fully connected layer; 14,715,584 weights (Simonyan and Zisserman 2015)",
    ),
    "vgg-19": ZooEntry(
        family="vgg",
        function="vgg_19",
        input_shape=(3, 32, 32),
        classes=10,
        summary="CIFAR VGG-19, batch norm, one fully connected layer; 20,024,000 weights (Simonyan and Zisserman 2015)",
    ),
    "vgg-11": ZooEntry(
        family="imagenet",
        function="vgg_11",
        input_shape=(3, 224, 224),
        classes=1000,
        summary="ImageNet VGG-11, three fully connected layers; 132,851,392 weights (Simonyan and Zisserman 2015)",
    ),
    "alexnet": ZooEntry(
        family="imagenet",
        function="alexnet",
        input_shape=(3, 224, 224),
        classes=1000,
        summary="ImageNet AlexNet, three fully connected layers; 61,090,496 weights (Krizhevsky 2014)",
    ),
    "resnet-18": ZooEntry(
        family="resnet",
        function="resnet_18",
        input_shape=(3, 224, 224),
        classes=1000,
        summary="ImageNet residual network; 11,678,912 weights (He et al. 2016)",
    ),
    "resnet-50": ZooEntry(
        family="resnet",
        function="resnet_50",
        input_shape=(3, 224, 224),
        classes=1000,
        summary="ImageNet residual network, stride on the 3x3; 25,502,912 weights (He et al. 2016)",
    ),
    "lstm": ZooEntry(
        family="recurrent",
        function="lstm",
        input_shape=(1, 28, 28),
        classes=10,
        options={"hidden": 400},
        summary="one recurrent layer that reads an image row by row; 688,800 weights (Zhang and Stadie 2020)",
    ),
    "rvfl": ZooEntry(
        family="random_vector",
        function="rvfl",
        input_shape=(1, 28, 28),
        classes=10,
        options={"hidden": 1000},
        summary="functional-link net: sigmoid units, and inputs beside them; 801,840 weights (Pao et al. 1994)",
    ),
    "vit-tiny": ZooEntry(
        family="vision_transformer",
        function="vit_tiny",
        input_shape=(3, 32, 32),
        classes=10,
        options={"patch": 4, "hidden": 64, "layers": 4, "heads": 4, "feed_forward": 128},
        summary="small vision transformer for CIFAR; 134,784 weights (Dosovitskiy et al. 2021)",
    ),
    "text-encoder": ZooEntry(
        family="text",
        function="text_encoder",
        input_shape=(32,),
        input_dtype="int64",
        classes=4,
        options={"vocabulary": 1000, "hidden": 64, "layers": 2, "heads": 4, "feed_forward": 256},
        summary="BERT-style encoder of token ids, mean pooling, classifier; 98,560 weights (Devlin et al. 2019)",
    ),
}

__all__ = ["ZOO", "ZooEntry"]
